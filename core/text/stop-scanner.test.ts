/** Tests of stop texts, at every way that a text can be cut into pieces. */
import { expect, test } from 'vitest';
import { StopScanner } from './stop-scanner.ts';

function scan(text: string, stops: string[], pieceChars: number): { out: string; found: boolean } {
  const scanner = new StopScanner(stops);
  let out = '';
  for (let at = 0; at < text.length; at += pieceChars) {
    out += scanner.push(text.slice(at, at + pieceChars));
  }
  out += scanner.flush();
  return { out, found: scanner.found };
}

test.each([1, 2, 3, 5, 100])('pieces of %i characters', (pieceChars) => {
  expect(scan('one two three', ['two'], pieceChars)).toEqual({ out: 'one ', found: true });
  expect(scan('aaab', ['aab'], pieceChars)).toEqual({ out: 'a', found: true });
  expect(scan('one two', ['three', 'twofold'], pieceChars)).toEqual({
    out: 'one two',
    found: false,
  });
  expect(scan('x', [], pieceChars)).toEqual({ out: 'x', found: false });
});

test('of two stop texts the first in the text counts', () => {
  expect(scan('a b c', ['c', 'b'], 100).out).toBe('a ');
});

test('nothing is held back that cannot become a stop text', () => {
  const scanner = new StopScanner(['END']);
  expect(scanner.push('abc')).toBe('abc');
  expect(scanner.push('dE')).toBe('d');
  expect(scanner.push('Nx')).toBe('ENx');
});
