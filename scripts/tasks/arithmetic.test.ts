/** The arithmetic evaluator against JavaScript itself, and what it refuses. */
import { describe, expect, it } from 'vitest';
import { evaluateArithmetic } from './arithmetic.ts';

describe('evaluateArithmetic', () => {
  it('agrees with JavaScript', () => {
    expect(evaluateArithmetic('(15-2+7*9)*6')).toBe(String((15 - 2 + 7 * 9) * 6));
    expect(evaluateArithmetic('8-3-2')).toBe('3');
    expect(evaluateArithmetic('24/4/3')).toBe('2');
    expect(evaluateArithmetic('1/4')).toBe('0.25');
    expect(evaluateArithmetic('Math.abs(92090-505992)')).toBe('413902');
    expect(evaluateArithmetic('-(2+3)')).toBe('-5');
  });

  it('refuses anything else, naming it', () => {
    for (const text of ['', '1+', '(1', '1 2', 'x+1', 'process.exit()', 'Math.abs 1']) {
      expect(() => evaluateArithmetic(text)).toThrow(`not an arithmetic expression: ${text}`);
    }
  });
});
