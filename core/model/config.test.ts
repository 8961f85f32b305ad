/** config.json: round trips, defaults of Hugging Face, and every refusal by the key at fault. */
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import { Prng } from '../prng.ts';
import { formatModelConfig, parseModelConfig } from './config.ts';

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

describe('parseModelConfig', () => {
  it('reads the Llama family', () => {
    expect(parseModelConfig(LLAMA, 'c')).toEqual({
      modelType: 'llama',
      layers: 2,
      hidden: 64,
      heads: 4,
      kvHeads: 2,
      headDim: 16,
      intermediate: 128,
      vocabulary: 100,
      contextTokens: 512,
      ropeTheta: 500000,
      rmsNormEpsilon: 1e-5,
      qkvBias: false,
      tiedEmbeddings: true,
    });
  });

  it('reads the Qwen2 family, whose projections have a bias without saying so', () => {
    const config = parseModelConfig({ ...LLAMA, model_type: 'qwen2', head_dim: 8 }, 'c');
    expect(config).toMatchObject({ modelType: 'qwen2', qkvBias: true, headDim: 8 });
  });

  it("takes Hugging Face's defaults for what is absent", () => {
    const { model_type, hidden_size, intermediate_size, num_hidden_layers, vocab_size } = LLAMA;
    const small = { model_type, hidden_size, intermediate_size, num_hidden_layers, vocab_size };
    expect(parseModelConfig({ ...small, num_attention_heads: 8 }, 'c')).toMatchObject({
      kvHeads: 8,
      headDim: 8,
      contextTokens: 2048,
      ropeTheta: 10000,
      rmsNormEpsilon: 1e-6,
      tiedEmbeddings: false,
    });
  });

  it.each(['llama', 'qwen2'])('reads back what it writes: %s', (model_type) => {
    const config = parseModelConfig({ ...LLAMA, model_type, rope_scaling: null }, 'c');
    const text = JSON.stringify(formatModelConfig(config));
    expect(parseModelConfig(JSON.parse(text), 'c')).toEqual(config);
  });

  it.each([
    ['no object', 'text', /is not a JSON object/],
    ['null', null, /is not a JSON object/],
    ['another family', { ...LLAMA, model_type: 'gpt2' }, /model_type "gpt2" .* llama, qwen2/],
    ['no family', { ...LLAMA, model_type: undefined }, /model_type undefined is not supported/],
    ['a missing size', { ...LLAMA, hidden_size: undefined }, /hidden_size must be a positive int/],
    ['a size of text', { ...LLAMA, vocab_size: '100' }, /vocab_size .* not "100"/],
    ['a size of 0', { ...LLAMA, intermediate_size: 0 }, /intermediate_size .* not 0/],
    ['a fraction', { ...LLAMA, num_hidden_layers: 1.5 }, /num_hidden_layers .* not 1.5/],
    [
      'endless layers',
      { ...LLAMA, num_hidden_layers: 2e9 },
      /num_hidden_layers 2000000000 is larg/,
    ],
    ['an endless window', { ...LLAMA, max_position_embeddings: 2e9 }, /max_position_embeddings 2/],
    ['heads that do not divide', { ...LLAMA, num_key_value_heads: 3 }, /heads 4 is no multiple/],
    ['a broken head width', { ...LLAMA, hidden_size: 66 }, /head_dim .* not 16.5/],
    ['an odd head width', { ...LLAMA, head_dim: 7 }, /head_dim 7 must be even/],
    ['theta 0', { ...LLAMA, rope_theta: 0 }, /rope_theta must be a positive number, not 0/],
    ['theta as text', { ...LLAMA, rope_theta: '1e4' }, /rope_theta .* not "1e4"/],
    ['rope scaling', { ...LLAMA, rope_scaling: { rope_type: 'yarn' } }, /rope_scaling .*yarn/],
    ['rope parameters', { ...LLAMA, rope_parameters: {} }, /rope_parameters is not supported/],
    ['another activation', { ...LLAMA, hidden_act: 'gelu' }, /hidden_act "gelu"/],
    ['a bias in the MLP', { ...LLAMA, mlp_bias: true }, /mlp_bias is not supported/],
    ['a bias on o_proj', { ...LLAMA, attention_bias: true }, /attention_bias of the Llama family/],
    [
      'sliding windows',
      { ...LLAMA, model_type: 'qwen2', use_sliding_window: true },
      /sliding windows are not supported/,
    ],
  ])('refuses %s', (_name, json, message) => {
    const parse = () => parseModelConfig(json, 'dir/config.json');
    expect(parse).toThrowError(message);
    expect(parse).toThrowError(/^dir\/config\.json: /);
    expect(parse).toThrowError(expect.objectContaining({ code: 'policy_invalid' }));
  });

  it('never throws anything but policy_invalid, whatever the values', () => {
    const prng = new Prng(6);
    const odd = [null, undefined, true, '', 'x', -1, 0, 0.5, 1e99, NaN, [], {}, [1], 3, 2 ** 40];
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
      const json: Record<string, unknown> = { ...LLAMA, rope_scaling: null, hidden_act: 'silu' };
      for (let change = prng.below(2); change >= 0; change--) {
        json[prng.pick(Object.keys(json))] = prng.pick(odd);
      }
      try {
        const config = parseModelConfig(json, 'c');
        expect(config.heads % config.kvHeads).toBe(0);
        expect(Number.isInteger(config.headDim)).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(AppError);
        expect((error as AppError).code).toBe('policy_invalid');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(1000);
    expect(refused).toBeLessThan(3000);
  });
});
