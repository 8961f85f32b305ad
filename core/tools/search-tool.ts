/**
 * The tool `search`: full-text search over the server's knowledge base. The result is the texts of
 * the best documents, one a line, because a small policy reads plain lines best.
 */
import { LIMITS } from '../limits.ts';
import type { SearchIndex, Tool } from '../ports.ts';

export interface SearchToolOptions {
  /** Documents a call. */
  results?: number;
}

export function searchTool(index: SearchIndex, options: SearchToolOptions = {}): Tool {
  const results = options.results ?? 2;
  return {
    name: 'search',
    description: 'Searches the knowledge base and returns the best matching texts, one a line.',
    parameters: {
      type: 'object',
      properties: { query: { type: 'string', description: 'Words to look for.' } },
      required: ['query'],
      additionalProperties: false,
    },
    primaryArgument: 'query',
    effects: 'none',
    timeoutMs: LIMITS.toolTimeoutMs,
    run: async (args) => {
      const hits = index.search(args.query as string, results);
      if (hits.length === 0) return 'no results';
      return hits.map((hit) => hit.text.replace(/\s*\n\s*/g, ' ').trim()).join('\n');
    },
  };
}
