/**
 * The tool `search`: full-text search over the server's knowledge base; `search_NAME` over another
 * collection of documents. A tool each, because a policy chooses among tools better than among
 * values of an argument, and a task or a run can name those that it may use; with an underscore,
 * because OpenAI's clients take letters, digits, `_` and `-` in the name of a function.
 *
 * The result is the texts of the best documents, one a line, because a small policy reads plain
 * lines best.
 */
import { LIMITS } from '../limits.ts';
import type { SearchIndex, SlowSearchIndex, Tool } from '../ports.ts';

export interface SearchToolOptions {
  /** Documents a call. */
  results?: number;
  /** Of letters, digits, `_` and `-`, at most 57; the knowledge base when left out. */
  collection?: string;
}

export function searchTool(
  index: SearchIndex | SlowSearchIndex,
  options: SearchToolOptions = {},
): Tool {
  const { results = 2, collection } = options;
  const where = collection === undefined ? 'the knowledge base' : `the documents of ${collection}`;
  return {
    name: collection === undefined ? 'search' : `search_${collection}`,
    description: `Searches ${where} and returns the best matching texts, one a line.`,
    parameters: {
      type: 'object',
      properties: { query: { type: 'string', description: 'Words to look for.' } },
      required: ['query'],
      additionalProperties: false,
    },
    primaryArgument: 'query',
    effects: 'none',
    timeoutMs: LIMITS.toolTimeoutMs,
    run: async (args, signal) => {
      const hits = await index.search(args.query as string, results, signal);
      if (hits.length === 0) return 'no results';
      return hits.map((hit) => hit.text.replace(/\s*\n\s*/g, ' ').trim()).join('\n');
    },
  };
}
