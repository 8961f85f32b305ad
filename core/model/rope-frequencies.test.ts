/**
 * Rotary frequencies against those of transformers (scripts/parity/parity_rope.py), for the widths,
 * windows and scalings of published models and every option of yarn; and the tables made of them.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../paths.ts';
import { parseModelConfig } from './config.ts';
import { inverseFrequencies, rotaryGain } from './rope-frequencies.ts';

interface RopeCase {
  name: string;
  config: Record<string, unknown>;
  attentionFactor: number;
  frequencies: number[];
}

const CASES = JSON.parse(
  readFileSync(join(packageRoot, 'test/fixtures/parity/rope.json'), 'utf8'),
) as RopeCase[];
/** Two float32 roundings: the power of the two libraries may differ by the last bit. */
const RELATIVE = 2 ** -22;

describe('frequencies and attention factors of transformers', () => {
  it.each(CASES.map((found) => [found.name, found] as const))('%s', (_name, found) => {
    const config = parseModelConfig(found.config, 'c');
    const frequencies = inverseFrequencies(config);
    expect(frequencies.length).toBe(found.frequencies.length);
    found.frequencies.forEach((expected, i) => {
      const error = Math.abs(frequencies[i]! - expected);
      expect(error, `pair ${i}`).toBeLessThanOrEqual(RELATIVE * expected);
    });
    expect(rotaryGain(config)).toBeCloseTo(found.attentionFactor, 14);
  });

  it('are there for every scaling, and the scalings differ', () => {
    const types = CASES.map(({ config }) => parseModelConfig(config, 'c').ropeScaling?.type);
    expect(new Set(types)).toEqual(new Set([undefined, 'linear', 'llama3', 'yarn']));
    const slowest = CASES.map(({ frequencies }) => frequencies.at(-1));
    expect(new Set(slowest).size).toBeGreaterThan(8);
  });
});
