/** Texts that are numbers, and texts that only look like one. */
import { describe, expect, it } from 'vitest';
import { parseQuantity, sameQuantity } from './quantity.ts';

describe('parseQuantity', () => {
  it.each([
    ['12', 12],
    ['-3.5', -3.5],
    ['.5', 0.5],
    ['1,234,567 people', 1234567],
    ['3/4', 0.75],
    ['\\frac{3}{4}', 0.75],
    ['-\\frac{1}{2}', -0.5],
    ['1\\frac{3}{4}', 1.75],
    ['1 3/4 cups', 1.75],
    ['-1 1/2', -1.5],
    ['$5', 5],
    ['50%', 50],
    ['x = 7', 7],
    ['5 km^2', 5],
    ['6 km2', 6],
    ['12\\text{ apples}.', 12],
    ['1.2e3', 1200],
    ['3 \\times 10^{8} m/s', 3e8],
    ['−4', -4],
    ['12 or 13', null],
    ['1,23', null],
    ['4 + 5', null],
    ['3/0', null],
    ['about 7', null],
    ['1e999', null],
    ['', null],
    ['9'.repeat(201), null],
  ])('%s', (text, value) => {
    const parsed = parseQuantity(text);
    if (value === null) expect(parsed).toBeNull();
    else expect(parsed).toBeCloseTo(value, 12);
  });

  it('compares with a relative tolerance', () => {
    expect(sameQuantity('0.3333333', '1/3')).toBe(true);
    expect(sameQuantity('0.333', '1/3')).toBe(false);
    expect(sameQuantity('1000000.5', '1000000')).toBe(true);
    expect(sameQuantity('0', '0')).toBe(true);
  });

  it('stays fast on hostile text', () => {
    const started = performance.now();
    parseQuantity(`1${'a'.repeat(199)}!`);
    parseQuantity('1'.repeat(199) + '!');
    parseQuantity('1 '.repeat(100));
    expect(performance.now() - started).toBeLessThan(50);
  });
});
