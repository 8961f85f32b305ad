/**
 * The server over checkpoints of other families than the shipped one, as a user would point it at
 * them: a directory with config, weights, tokenizer and chat template, random weights. Asked by the
 * official client, plain and streamed, with tools and without, and as an agent run.
 */
import { mkdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { initialWeights } from '../../core/model/parameters.ts';
import { savePolicyModel } from '../../core/model/policy-directory.ts';
import type { ModelConfig } from '../../core/model/types.ts';
import { Prng } from '../../core/prng.ts';
import { writeLlamaFiles } from '../../core/text/testing/llama-files.ts';
import { writeQwenFiles } from '../../core/text/testing/qwen-files.ts';
import { openaiClient } from '../support/clients.ts';
import { call, fixture } from './fixture.ts';

const { path, launch } = fixture();

const SMALL = {
  layers: 2,
  hidden: 32,
  heads: 4,
  kvHeads: 2,
  intermediate: 48,
  vocabulary: 320,
  contextTokens: 4_096,
  rmsNormEpsilon: 1e-6,
} as const;

const CHECKPOINTS: readonly [string, (directory: string) => void, ModelConfig][] = [
  [
    'Llama 3.1',
    writeLlamaFiles,
    {
      ...SMALL,
      modelType: 'llama',
      headDim: 8,
      qkvBias: false,
      tiedEmbeddings: false,
      ropeTheta: 500_000,
      ropeScaling: {
        type: 'llama3',
        factor: 8,
        lowFrequencyFactor: 1,
        highFrequencyFactor: 4,
        originalContextTokens: 1_024,
      },
    },
  ],
  [
    'Qwen3',
    writeQwenFiles,
    {
      ...SMALL,
      modelType: 'qwen3',
      headDim: 16,
      qkvBias: false,
      tiedEmbeddings: true,
      ropeTheta: 1_000_000,
    },
  ],
];

const SEARCH = {
  type: 'function' as const,
  function: {
    name: 'search',
    description: 'Searches.',
    parameters: { type: 'object', properties: { query: { type: 'string' } } },
  },
};

describe.each(CHECKPOINTS)('%s', (_name, writeText, config) => {
  it('is served like any other policy', async () => {
    const policy = path('policy');
    mkdirSync(policy);
    writeText(policy);
    savePolicyModel(policy, { config, weights: initialWeights(config, new Prng(5)) });
    const flags = ['--policy', policy];
    const server = await launch({ dataFolder: path('data'), flags }).ready();
    const openai = openaiClient(server.url);
    const messages = [{ role: 'user' as const, content: 'Which is the capital?' }];

    const ask = { model: 'ramify', messages, max_completion_tokens: 24, seed: 7 };
    const plain = await openai.chat.completions.create(ask);
    expect(plain.usage).toMatchObject({ completion_tokens: 24 });
    expect(plain.choices[0]).toMatchObject({ finish_reason: 'length' });

    let streamed = '';
    for await (const chunk of await openai.chat.completions.create({ ...ask, stream: true })) {
      streamed += chunk.choices[0]?.delta.content ?? '';
    }
    expect(streamed).toBe(plain.choices[0]?.message.content);

    const offered = await openai.chat.completions.create({ ...ask, tools: [SEARCH] });
    expect(offered.usage?.prompt_tokens).toBeGreaterThan(plain.usage?.prompt_tokens ?? Infinity);

    const run = await call(server, 'POST', '/v1/agent/runs', {
      input: 'Which is the capital?',
      tools: ['search'],
      max_tokens: 24,
      seed: 7,
    });
    expect(run.status).toBe(200);
    const log = await call(server, 'GET', `/v1/trajectories/${run.body.trajectory_id}`);
    expect(log.body.steps.map((step: { kind: string }) => step.kind)).toContain('policy');
  });
});
