/** The command line: seeds in their three forms, and every wrong value named. */
import { describe, expect, it } from 'vitest';
import { ARM_SETS, CONTROLS, REFERENCE, type ArmSet } from './arms.ts';
import { parseOptions, parseSeeds } from './options.ts';
import { armSettings } from './training-run.ts';

describe('parseSeeds', () => {
  it.each([
    ['8', [1, 2, 3, 4, 5, 6, 7, 8]],
    ['3-5', [3, 4, 5]],
    ['4-4', [4]],
    ['2,9,2', [2, 9]],
  ])('%s', (text, seeds) => expect(parseSeeds(text)).toEqual(seeds));

  it.each(['', '0', '5-3', '0-2', '1,', 'a', '1.5', '-1', '1-2-3'])('refuses "%s"', (text) => {
    expect(() => parseSeeds(text)).toThrow(`--seeds ${text}: must be`);
  });
});

describe('parseOptions', () => {
  it('has defaults for everything', () => {
    const options = parseOptions([])!;
    expect(options.seeds).toHaveLength(8);
    expect(options.arms).toEqual(ARM_SETS.rules);
    expect(options.plan).toMatchObject({ set: 'rules', steps: 80 });
    const old = parseOptions(['--set', 'off-policy'])!;
    expect(old.seeds).toHaveLength(3);
    expect(old.plan).toMatchObject({ set: 'off-policy', steps: 40, learningRate: 2e-4 });
    expect(parseOptions(['--help'])).toBeNull();
  });

  it.each([
    [['--set', 'all'], '--set all'],
    [['--arms', 'grpo-16,other'], "no arm 'other'"],
    [['--steps', '0'], '--steps 0'],
    [['--rate', '2'], '--rate 2'],
    [['--minutes', 'x'], '--minutes x'],
    [['--unknown'], '--unknown'],
  ])('%j is refused', (args, message) => {
    expect(() => parseOptions(args)).toThrow(message);
  });
});

describe.each(Object.keys(ARM_SETS) as ArmSet[])('arms of %s', (set) => {
  const plan = { ...parseOptions(['--set', set])!.plan, startSha256: '' };

  it('have names of their own and settings that differ', () => {
    const names = ARM_SETS[set].map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    const settings = ARM_SETS[set].map((arm) => JSON.stringify(armSettings(plan, arm)));
    expect(new Set(settings).size).toBe(names.length);
  });

  it('run every call: no cassette answers in their place', () => {
    for (const arm of ARM_SETS[set]) expect(armSettings(plan, arm).cassette).toBe(false);
  });
});

it('the reference and the controls are arms', () => {
  const names = ARM_SETS.rules.map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining([REFERENCE, ...CONTROLS]));
});
