/** Tests of \boxed{} extraction. */
import { expect, test } from 'vitest';
import { extractBoxed } from './boxed.ts';

test.each([
  ['so \\boxed{42}.', '42'],
  ['\\boxed{ \\frac{1}{2} }', '\\frac{1}{2}'],
  ['\\boxed{a} and then \\boxed{b{c{d}}}', 'b{c{d}}'],
  ['\\boxed{\\{1, 2\\}}', '\\{1, 2\\}'],
  ['\\boxed{}', ''],
  ['\\boxed{never closed {}', null],
  ['\\boxed 42', null],
  ['42', null],
])('%s', (text, content) => {
  expect(extractBoxed(text)).toBe(content);
});
