/** Flags of the demo: defaults, overrides, refusals that name the value. */
import { expect, it } from 'vitest';
import { parseOptions } from './options.ts';

it('has defaults that need no flag', () => {
  const options = parseOptions([]);
  expect(options).toMatchObject({ seed: 1, questions: 60, steps: 100, algorithm: 'arpo' });
  expect(options?.svgPath).toMatch(/data.demo.learning-curve-seed-1\.svg$/);
  expect(options?.summaryPath).toMatch(/learning-curve-seed-1\.json$/);
});

it('reads flags and settings', () => {
  const options = parseOptions(
    '--seed 3 --questions 180 --setting learningRate=0.0002 --setting branch="none"'.split(' '),
  );
  expect(options).toMatchObject({ seed: 3, questions: 180 });
  expect(options?.settings).toEqual({ learningRate: 0.0002, branch: 'none' });
  expect(parseOptions(['--help'])).toBeNull();
});

it.each([
  ['--seed x', /--seed x: must be an integer/],
  ['--questions 601', /--questions 601: must be an integer from 1 to 600/],
  ['--algorithm ppo', /--algorithm ppo/],
  ['--setting learningRate', /--setting learningRate: must be NAME=VALUE/],
  ['--setting a=b', /--setting a=b/],
  ['--out curve.png', /curve\.png: must end in \.svg/],
  ['--unknown', /--unknown/],
])('refuses %s', (flags, message) => {
  expect(() => parseOptions(flags.split(' '))).toThrow(message);
});
