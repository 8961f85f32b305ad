/** generation_config.json: published files, what is absent, and every refusal by its field. */
import { describe, expect, it } from 'vitest';
import { parseGenerationConfig, readGenerationConfig } from './generation-config.ts';

describe('generation_config.json', () => {
  it('is read of Llama-3.2-1B-Instruct', () => {
    const json = {
      bos_token_id: 128000,
      do_sample: true,
      eos_token_id: [128001, 128008, 128009],
      temperature: 0.6,
      top_p: 0.9,
      transformers_version: '4.45.0.dev0',
    };
    expect(parseGenerationConfig(json, 'g')).toEqual({
      bosTokenId: 128000,
      doSample: true,
      eosTokenIds: [128001, 128008, 128009],
      temperature: 0.6,
      topP: 0.9,
    });
  });

  it('is read of Qwen2.5-0.5B and of Qwen2.5-0.5B-Instruct', () => {
    const base = {
      bos_token_id: 151643,
      do_sample: false,
      eos_token_id: 151643,
      max_new_tokens: 2048,
      transformers_version: '4.37.0',
    };
    expect(parseGenerationConfig(base, 'g')).toEqual({
      bosTokenId: 151643,
      doSample: false,
      eosTokenIds: [151643],
      maxNewTokens: 2048,
    });
    const instruct = {
      bos_token_id: 151643,
      pad_token_id: 151643,
      do_sample: true,
      eos_token_id: [151645, 151643],
      repetition_penalty: 1.1,
      temperature: 0.7,
      top_p: 0.8,
      top_k: 20,
      min_p: 0,
    };
    expect(parseGenerationConfig(instruct, 'g')).toEqual({
      bosTokenId: 151643,
      padTokenId: 151643,
      doSample: true,
      eosTokenIds: [151645, 151643],
      repetitionPenalty: 1.1,
      temperature: 0.7,
      topP: 0.8,
      topK: 20,
      minP: 0,
    });
  });

  it('states nothing where there is no file, or only nulls and fields of others', () => {
    expect(readGenerationConfig('test/no-such-directory')).toEqual({});
    const json = { eos_token_id: null, top_k: null, do_sample: null, _from_model_config: true };
    expect(parseGenerationConfig(json, 'g')).toEqual({});
  });

  it.each([
    ['no object', [], /is not a JSON object/],
    ['an end of text', { eos_token_id: '</s>' }, /eos_token_id holds "<\/s>"/],
    ['one bad end', { eos_token_id: [1, -2] }, /eos_token_id holds -2/],
    ['a start below 0', { bos_token_id: -1 }, /bos_token_id .* at least 0, not -1/],
    ['half a token', { pad_token_id: 0.5 }, /pad_token_id must be an integer .* not 0.5/],
    ['sampling of text', { do_sample: 'yes' }, /do_sample must be true or false, not "yes"/],
    ['cold', { temperature: -0.1 }, /temperature must be .* not -0.1/],
    ['temperature of text', { temperature: '1' }, /temperature must be .* not "1"/],
    ['no nucleus', { top_p: 0 }, /top_p must be a positive number, not 0/],
    ['too large a nucleus', { top_p: 1.1 }, /top_p 1.1 is larger than 1/],
    ['half a rank', { top_k: 2.5 }, /top_k must be an integer .* not 2.5/],
    ['min-p above 1', { min_p: 2 }, /min_p 2 is larger than 1/],
    ['penalty 0', { repetition_penalty: 0 }, /repetition_penalty must be .* not 0/],
    ['no tokens', { max_new_tokens: 0 }, /max_new_tokens must be a positive integer, not 0/],
  ])('is refused: %s', (_name, json, message) => {
    const parse = () => parseGenerationConfig(json, 'dir/generation_config.json');
    expect(parse).toThrowError(message);
    expect(parse).toThrowError(/^dir\/generation_config\.json: /);
    expect(parse).toThrowError(expect.objectContaining({ code: 'policy_invalid' }));
  });
});
