/** Chunk lengths of small and large models. */
import { expect, test } from 'vitest';
import { LIMITS } from '../limits.ts';
import { chunkLength } from './chunk-length.ts';

test.each([
  { parameters: 3.3e6, rows: 1, tokens: 32 },
  { parameters: 3.3e6, rows: 8, tokens: 32 },
  { parameters: 3.3e6, rows: 32, tokens: 16 },
  { parameters: 3.3e6, rows: 64, tokens: 8 },
  { parameters: 5e8, rows: 1, tokens: 4 },
  { parameters: 7e9, rows: 8, tokens: 4 },
])('$rows rows of $parameters parameters: $tokens tokens', ({ parameters, rows, tokens }) => {
  expect(chunkLength(parameters, rows, LIMITS.chunkTokens)).toBe(tokens);
});

test('an engine with short chunks keeps them', () => {
  expect(chunkLength(1e6, 1, 5)).toBe(5);
  expect(chunkLength(1e12, 1, 3)).toBe(3);
});
