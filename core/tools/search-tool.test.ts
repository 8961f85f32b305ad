/** Tests of the search tool's texts over a small index in memory. */
import { expect, test } from 'vitest';
import { systemClock } from '../clock.ts';
import type { SearchHit, SearchIndex } from '../ports.ts';
import { createToolRegistry } from './registry.ts';
import { searchTool } from './search-tool.ts';

const DOCUMENTS = [
  'Paris is the capital of France.',
  'France borders\n Spain. ',
  'France is large.',
];

/** Finds documents that hold the query as it is. */
const index: SearchIndex = {
  search: (query, limit) =>
    DOCUMENTS.filter((text) => text.includes(query))
      .slice(0, limit)
      .map((text, i): SearchHit => ({ id: String(i), title: '', text, score: 1 })),
};

test.each([
  ['France', undefined, 'Paris is the capital of France.\nFrance borders Spain.'],
  ['France', 1, 'Paris is the capital of France.'],
  ['Chad', undefined, 'no results'],
])('%s, %s results', async (query, results, expected) => {
  const tools = createToolRegistry([searchTool(index, { results })], { clock: systemClock });
  const outcome = await tools.call('search', JSON.stringify({ query }));
  expect(outcome).toMatchObject({ result: expected, error: null });
});

test('a query that is no text is refused', async () => {
  const tools = createToolRegistry([searchTool(index)], { clock: systemClock });
  const outcome = await tools.call('search', '{"query":7}');
  expect(outcome.error).toBe('tool_arguments_invalid');
});
