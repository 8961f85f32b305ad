/** Text charts: bars as high as their values, at most as wide as a terminal. */
import { expect, it } from 'vitest';
import { condensed, smoothed, textChart } from './chart-text.ts';

it('draws bars in eighths of a character', () => {
  expect(textChart({ title: 'accuracy', values: [0, 0.25, 0.5, 1], height: 2 })).toBe(
    ['accuracy', '  1.00 │   █', '  0.00 │ ▄██', '       └────', '        1  4 steps'].join('\n'),
  );
});

it('starts below zero when a value does', () => {
  const chart = textChart({ title: 'reward', values: [-1, 0, 1], height: 2 });
  expect(chart).toContain('  1.00 │  █');
  expect(chart).toContain(' -1.00 │ ██');
});

it('keeps long runs within the width, every step counted once', () => {
  const values = Array.from({ length: 200 }, (_, i) => i);
  const columns = condensed(values, 64);
  expect(columns).toHaveLength(64);
  expect(columns).toEqual([...columns].sort((a, b) => a - b));
  const widest = Math.max(
    ...textChart({ title: 't', values })
      .split('\n')
      .map((row) => row.length),
  );
  expect(widest).toBeLessThanOrEqual(80);
});

it('says so when there is nothing to draw, and draws equal values', () => {
  expect(textChart({ title: 'reward', values: [] })).toBe('reward: no steps');
  expect(textChart({ title: 'reward', values: [0, 0] })).toContain('  0.00 │');
});

it('smooths by the neighbours there are', () => {
  expect(smoothed([0, 3, 6], 1)).toEqual([1.5, 3, 4.5]);
});
