/** The rotary part of a config.json: both ways of writing it, every scaling and option. */
import { describe, expect, it } from 'vitest';
import { parseModelConfig } from './config.ts';

const LLAMA = {
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 100,
  max_position_embeddings: 512,
  rope_theta: 500000,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
};
const LLAMA3_SCALING = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 64,
};
const YARN = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 128 };
const YARN_PARSED = {
  type: 'yarn',
  factor: 4,
  originalContextTokens: 128,
  attentionFactor: 0.1 * Math.log(4) + 1,
  betaFast: 32,
  betaSlow: 1,
  truncate: true,
};

const scaled = (rope_scaling: unknown, more: object = {}) =>
  parseModelConfig({ ...LLAMA, rope_scaling, ...more }, 'c').ropeScaling;

describe('the rotary part', () => {
  it('is read in the form of transformers 4 and 5 alike', () => {
    for (const scaling of [LLAMA3_SCALING, YARN, { rope_type: 'linear', factor: 2 }]) {
      const { rope_theta, ...rest } = LLAMA;
      const four = { ...LLAMA, rope_scaling: scaling };
      const five = { ...rest, rope_parameters: { ...scaling, rope_theta } };
      expect(parseModelConfig(five, 'c')).toEqual(parseModelConfig(four, 'c'));
      expect(parseModelConfig(four, 'c').ropeScaling).toMatchObject({ factor: scaling.factor });
    }
  });

  it('takes theta from inside, then from outside, then the default', () => {
    const theta = (json: object) => parseModelConfig({ ...LLAMA, ...json }, 'c').ropeTheta;
    const inside = { rope_parameters: { rope_type: 'default', rope_theta: 7 } };
    expect(theta(inside)).toBe(7);
    expect(theta({ rope_parameters: { rope_type: 'default' } })).toBe(500000);
    expect(theta({ rope_theta: undefined, rope_parameters: {} })).toBe(10000);
  });

  it('has no scaling where it is null, empty or default', () => {
    expect(scaled(null)).toBeUndefined();
    expect(scaled({})).toBeUndefined();
    expect(scaled({ rope_type: 'default', partial_rotary_factor: 1 })).toBeUndefined();
    // What version 5 writes of a scaled model is read as one thing with a null of version 4.
    expect(scaled(null, { rope_parameters: YARN })).toEqual(YARN_PARSED);
  });

  it('reads every scaling, by its newer and its older key', () => {
    expect(scaled({ type: 'linear', factor: 2.5 })).toEqual({ type: 'linear', factor: 2.5 });
    expect(scaled(LLAMA3_SCALING)).toEqual({
      type: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextTokens: 64,
    });
    expect(scaled(YARN)).toEqual(YARN_PARSED);
    expect(scaled({ ...YARN, rope_type: undefined, type: 'yarn' })).toEqual(YARN_PARSED);
  });

  it('reads every option of yarn', () => {
    expect(scaled({ ...YARN, beta_fast: 16, beta_slow: 2, truncate: false })).toEqual({
      ...YARN_PARSED,
      betaFast: 16,
      betaSlow: 2,
      truncate: false,
    });
    // As in transformers, zero is the default.
    expect(scaled({ ...YARN, beta_fast: 0, beta_slow: null, mscale: 0 })).toEqual(YARN_PARSED);
    expect(scaled({ ...YARN, attention_factor: 0.5, mscale: 1, mscale_all_dim: 1 })).toEqual({
      ...YARN_PARSED,
      attentionFactor: 0.5,
    });
    const both = scaled({ ...YARN, mscale: 1, mscale_all_dim: 0.707 });
    const mscale = (share: number) => 0.1 * share * Math.log(4) + 1;
    expect(both).toEqual({ ...YARN_PARSED, attentionFactor: mscale(1) / mscale(0.707) });
    expect(scaled({ ...YARN, mscale: 2 })).toEqual(YARN_PARSED);
    expect(scaled({ ...YARN, factor: 1 })).toMatchObject({ attentionFactor: 1 });
  });

  it('takes the original window from outside, then inside, then the window', () => {
    const original = 'original_max_position_embeddings';
    expect(scaled(YARN, { [original]: 99 })).toMatchObject({ originalContextTokens: 99 });
    expect(scaled({ ...YARN, [original]: undefined })).toMatchObject({
      originalContextTokens: 512,
    });
  });
});
