/**
 * config.json: published models, defaults of Hugging Face, round trips, and every refusal by the
 * key at fault, those of the rotary part too.
 */
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import { Prng } from '../prng.ts';
import { formatModelConfig, parseModelConfig } from './config.ts';
import { parameterCount } from './parameters.ts';
import { inverseFrequencies } from './rope-frequencies.ts';
import { PUBLISHED_CONFIGS } from './testing/published-configs.ts';
import type { ModelConfig } from './types.ts';

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
const QWEN2 = { ...LLAMA, model_type: 'qwen2' };
const QWEN3 = { ...LLAMA, model_type: 'qwen3', head_dim: 16 };
const LLAMA3_SCALING = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 64,
};
const YARN = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 128 };
describe('the shape of a model', () => {
  it('is read of the Llama family', () => {
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

  it.each([
    [
      'Llama-2-7b-hf',
      { layers: 32, kvHeads: 32, headDim: 128, contextTokens: 4096, ropeTheta: 10000 },
    ],
    [
      'Llama-3.1-8B',
      {
        kvHeads: 8,
        headDim: 128,
        ropeTheta: 500000,
        ropeScaling: {
          type: 'llama3',
          factor: 8,
          lowFrequencyFactor: 1,
          highFrequencyFactor: 4,
          originalContextTokens: 8192,
        },
      },
    ],
    ['Llama-3.2-1B', { headDim: 64, tiedEmbeddings: true, ropeScaling: { factor: 32 } }],
    ['Qwen2.5-0.5B', { headDim: 64, qkvBias: true, tiedEmbeddings: true, ropeTheta: 1e6 }],
    ['Qwen2.5-1.5B', { headDim: 128, qkvBias: true, contextTokens: 131072 }],
    ['Qwen3-0.6B', { hidden: 1024, heads: 16, headDim: 128, qkvBias: false, ropeTheta: 1e6 }],
  ] as const)('is read of %s', (name, expected) => {
    const { json, parameters } = PUBLISHED_CONFIGS[name];
    const config = parseModelConfig(json, name);
    expect(config).toMatchObject(expected);
    expect(parameterCount(config)).toBe(parameters);
    if (!('ropeScaling' in expected)) expect(config.ropeScaling).toBeUndefined();
  });

  it("has Hugging Face's defaults for what is absent", () => {
    const { model_type, hidden_size, intermediate_size, num_hidden_layers, vocab_size } = LLAMA;
    const small = { model_type, hidden_size, intermediate_size, num_hidden_layers, vocab_size };
    expect(parseModelConfig({ ...small, num_attention_heads: 8 }, 'c')).toEqual({
      modelType: 'llama',
      layers: 2,
      hidden: 64,
      heads: 8,
      kvHeads: 8,
      headDim: 8,
      intermediate: 128,
      vocabulary: 100,
      contextTokens: 2048,
      ropeTheta: 10000,
      rmsNormEpsilon: 1e-6,
      qkvBias: false,
      tiedEmbeddings: false,
    });
    const qwen = { ...small, num_attention_heads: 32 };
    expect(parseModelConfig({ ...qwen, model_type: 'qwen2' }, 'c')).toMatchObject({
      kvHeads: 32,
      headDim: 2,
      contextTokens: 32768,
      qkvBias: true,
    });
    expect(parseModelConfig({ ...qwen, model_type: 'qwen3' }, 'c')).toMatchObject({
      kvHeads: 32,
      headDim: 128,
      qkvBias: false,
    });
    // Absent means 32 in the Qwen families, null as many as query heads.
    const absent = { ...small, model_type: 'qwen2', num_attention_heads: 8 };
    expect(() => parseModelConfig(absent, 'c')).toThrowError(/heads 8 is no multiple of 32 KV/);
    expect(parseModelConfig({ ...absent, num_key_value_heads: null }, 'c').kvHeads).toBe(8);
  });

  it('has biases that are said, and those of Qwen2, which are not', () => {
    const bias = { attention_bias: true };
    const names = (json: object) => parseModelConfig(json, 'c').qkvBias;
    expect(names({ ...LLAMA, ...bias })).toBe(true);
    expect(names({ ...QWEN3, ...bias })).toBe(true);
    expect(names(QWEN2)).toBe(true);
    expect(parameterCount(parseModelConfig({ ...LLAMA, ...bias }, 'c'))).toBe(
      parameterCount(parseModelConfig(LLAMA, 'c')) + 2 * (64 + 32 + 32 + 64),
    );
    expect(parameterCount(parseModelConfig(QWEN2, 'c'))).toBe(
      parameterCount(parseModelConfig(LLAMA, 'c')) + 2 * (64 + 32 + 32),
    );
  });

  it('has full attention where sliding windows are written but reach no layer', () => {
    const windowed = { ...QWEN2, use_sliding_window: true, sliding_window: 128 };
    const open = [
      windowed, // max_window_layers is 28 by default, and there are 2 layers.
      { ...windowed, max_window_layers: 2 },
      { ...windowed, max_window_layers: 0, sliding_window: null },
      { ...windowed, max_window_layers: 0, layer_types: ['full_attention', 'full_attention'] },
      { ...LLAMA, sliding_window: 128 },
    ];
    for (const json of open) expect(parseModelConfig(json, 'c').layers).toBe(2);
  });
});

describe('what is written', () => {
  const options: [string, object][] = [
    ['llama', LLAMA],
    ['llama with biases', { ...LLAMA, attention_bias: true, head_dim: 8 }],
    ['qwen2', { ...QWEN2, tie_word_embeddings: false }],
    ['qwen3', { ...QWEN3, head_dim: 32 }],
    ['linear', { ...LLAMA, rope_scaling: { type: 'linear', factor: 2.5 } }],
    ['llama3', { ...LLAMA, rope_scaling: LLAMA3_SCALING }],
    ['yarn', { ...QWEN3, rope_parameters: YARN }],
    [
      'yarn with options',
      {
        ...QWEN2,
        rope_scaling: { ...YARN, beta_fast: 8, truncate: false, mscale: 1, mscale_all_dim: 0.5 },
      },
    ],
  ];
  it.each(options)('is read back: %s', (_name, json) => {
    const config = parseModelConfig(json, 'c');
    const written = JSON.stringify(formatModelConfig(config));
    expect(parseModelConfig(JSON.parse(written), 'c')).toEqual(config);
  });

  it.each(Object.entries(PUBLISHED_CONFIGS))('agrees with the page of %s', (name, { json }) => {
    const written = JSON.parse(
      JSON.stringify(formatModelConfig(parseModelConfig(json, name))),
    ) as Record<string, unknown>;
    const page: Record<string, unknown> = json;
    const shared = Object.keys(written).filter(
      (key) => (page[key] ?? null) !== null && key !== 'torch_dtype',
    );
    expect(shared.length).toBeGreaterThanOrEqual(12);
    for (const key of shared) expect(written[key], key).toEqual(page[key]);
  });
});

describe('a refusal names the key at fault', () => {
  const withScaling = (scaling: object) => ({ ...LLAMA, rope_scaling: scaling });
  it.each([
    ['no object', 'text', /is not a JSON object/],
    ['null', null, /is not a JSON object/],
    ['a list', [LLAMA], /is not a JSON object/],
    ['another family', { ...LLAMA, model_type: 'gpt2' }, /"gpt2" .* llama, qwen2, qwen3/],
    ['experts', { ...QWEN3, model_type: 'qwen3_moe' }, /model_type "qwen3_moe" is not supported/],
    ['no family', { ...LLAMA, model_type: undefined }, /model_type undefined is not supported/],
    ['a missing size', { ...LLAMA, hidden_size: undefined }, /hidden_size must be a positive int/],
    ['a size of text', { ...LLAMA, vocab_size: '100' }, /vocab_size .* not "100"/],
    ['a size of 0', { ...LLAMA, intermediate_size: 0 }, /intermediate_size .* not 0/],
    ['a fraction', { ...LLAMA, num_hidden_layers: 1.5 }, /num_hidden_layers .* not 1.5/],
    ['endless layers', { ...LLAMA, num_hidden_layers: 2e9 }, /num_hidden_layers 2000000000 is la/],
    ['an endless window', { ...LLAMA, max_position_embeddings: 2e9 }, /max_position_embeddings 2/],
    ['heads that do not divide', { ...LLAMA, num_key_value_heads: 3 }, /heads 4 is no multiple/],
    ['a broken head width', { ...LLAMA, hidden_size: 66 }, /head_dim .* not 16.5/],
    ['an odd head width', { ...LLAMA, head_dim: 7 }, /head_dim 7 must be even/],
    ['theta 0', { ...LLAMA, rope_theta: 0 }, /rope_theta must be a number of at least 1, not 0/],
    ['theta as text', { ...LLAMA, rope_theta: '1e4' }, /rope_theta .* not "1e4"/],
    ['epsilon 0', { ...LLAMA, rms_norm_eps: 0 }, /rms_norm_eps must be a positive number, not 0/],
    ['ties of text', { ...LLAMA, tie_word_embeddings: 'yes' }, /tie_word_embeddings .* not "yes"/],
    ['another activation', { ...LLAMA, hidden_act: 'gelu' }, /hidden_act "gelu" .* silu is/],
    ['a bias in the MLP', { ...LLAMA, mlp_bias: true }, /mlp_bias is not supported/],
    [
      'quantised weights',
      { ...LLAMA, quantization_config: { quant_method: 'gptq', bits: 4 } },
      /quantization_config \(quant_method "gptq"\) is not supported; f32, f16 and bf16/,
    ],
    [
      'sliding windows',
      { ...QWEN2, use_sliding_window: true, max_window_layers: 1 },
      /sliding windows are not supported/,
    ],
    [
      'sliding windows by layer',
      { ...QWEN3, layer_types: ['full_attention', 'sliding_attention'] },
      /sliding windows are not supported/,
    ],
    [
      'half a rotation',
      { ...LLAMA, partial_rotary_factor: 0.5 },
      /json: partial_rotary_factor 0.5 is not supported; 1 is/,
    ],
    [
      'half a rotation inside',
      { ...LLAMA, rope_parameters: { partial_rotary_factor: 0.5 } },
      /rope_parameters: partial_rotary_factor 0.5/,
    ],
    ['scaling as text', { ...LLAMA, rope_scaling: 'yarn' }, /rope_scaling: is not a JSON object/],
    [
      'two scalings',
      { ...LLAMA, rope_scaling: YARN, rope_parameters: YARN },
      /both rope_scaling and rope_parameters/,
    ],
    ['dynamic', withScaling({ type: 'dynamic', factor: 2 }), /rope_type "dynamic" .* llama3, yarn/],
    ['longrope', withScaling({ rope_type: 'longrope' }), /rope_type "longrope" is not supported/],
    [
      'a rotation for each kind of layer',
      { ...QWEN3, rope_parameters: { full_attention: YARN } },
      /rope_parameters: full_attention is not supported in a scaling of type default/,
    ],
    [
      'an option that is not known',
      withScaling({ ...YARN, finetuned: true }),
      /rope_scaling: finetuned is not supported in a scaling of type yarn/,
    ],
    ['no factor', withScaling({ rope_type: 'yarn' }), /factor must be a number of at least 1/],
    ['factor 0.5', withScaling({ ...YARN, factor: 0.5 }), /factor must be .* not 0.5/],
    ['no low frequency', withScaling({ rope_type: 'llama3', factor: 8 }), /low_freq_factor must/],
    [
      'frequencies that cross',
      withScaling({ ...LLAMA3_SCALING, high_freq_factor: 1 }),
      /high_freq_factor must be a number above 1, not 1/,
    ],
    ['no window', withScaling({ ...YARN, original_max_position_embeddings: 0 }), /original_max_po/],
    ['beta of text', withScaling({ ...YARN, beta_fast: '32' }), /beta_fast .* not "32"/],
    ['a factor of 0', withScaling({ ...YARN, attention_factor: 0 }), /attention_factor .* not 0/],
    ['mscale below 0', withScaling({ ...YARN, mscale: -1 }), /mscale .* not -1/],
    ['truncate of text', withScaling({ ...YARN, truncate: 'no' }), /truncate .* not "no"/],
    ['yarn of theta 1', { ...withScaling(YARN), rope_theta: 1 }, /yarn needs a rope_theta above 1/],
  ])('%s', (_name, json, message) => {
    const parse = () => parseModelConfig(json, 'dir/config.json');
    expect(parse).toThrowError(message);
    expect(parse).toThrowError(/^dir\/config\.json: /);
    expect(parse).toThrowError(expect.objectContaining({ code: 'policy_invalid' }));
  });

  it('and is the only thing ever thrown, whatever the values', () => {
    const prng = new Prng(6);
    const odd = [null, undefined, true, '', 'x', -1, 0, 0.5, 1e99, NaN, [], {}, [1], 3, 2 ** 40];
    const bases = [
      { ...LLAMA, rope_scaling: null, hidden_act: 'silu', attention_bias: false },
      { ...QWEN2, use_sliding_window: true, max_window_layers: 2, sliding_window: 4 },
      { ...QWEN3, layer_types: null, quantization_config: null },
    ];
    const scalings = [
      YARN,
      { ...YARN, mscale: 1, mscale_all_dim: 1, beta_slow: 2 },
      LLAMA3_SCALING,
    ];
    const mutate = (json: Record<string, unknown>) => {
      for (let change = prng.below(2); change >= 0; change--) {
        json[prng.pick(Object.keys(json))] = prng.pick(odd);
      }
      return json;
    };
    let refused = 0;
    for (let round = 0; round < 4000; round++) {
      const json: Record<string, unknown> = { ...prng.pick(bases) };
      if (round % 2 === 0) json.rope_scaling = mutate({ ...prng.pick(scalings) });
      else mutate(json);
      let config: ModelConfig;
      try {
        config = parseModelConfig(json, 'c');
      } catch (error) {
        expect(error).toBeInstanceOf(AppError);
        expect((error as AppError).code).toBe('policy_invalid');
        refused++;
        continue;
      }
      expect(config.heads % config.kvHeads).toBe(0);
      expect(Number.isInteger(config.headDim)).toBe(true);
      if (config.headDim < 1e4) {
        expect(inverseFrequencies(config).every((f) => f >= 0 && f <= 1)).toBe(true);
      }
      const text = JSON.stringify(formatModelConfig(config));
      expect(parseModelConfig(JSON.parse(text), 'c')).toEqual(config);
    }
    expect(refused).toBeGreaterThan(1000);
    expect(refused).toBeLessThan(3500);
  });
});
