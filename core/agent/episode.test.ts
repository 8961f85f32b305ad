/** The trajectory loop on a table-driven policy: tokens, limits, tools, malformed steps, forks. */
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import {
  FunctionTools,
  TableSampler,
  nextProbabilities,
  protocol,
  tableContext,
  tableWith,
  tokenOf,
  tokenizer,
  type TableSamplerOptions,
} from '../../test/support/table-policy.ts';
import { releasedCodeStepEntropy, tokenEntropy, type EntropySettings } from '../arpo/entropy.ts';
import { Episode } from './episode.ts';
import type { ToolRunner } from '../ports.ts';
import type { StepRecord } from '../records.ts';
import type { Continuation, EpisodeLimits } from './types.ts';

const OFFERED = new Set(['search', 'lookup']);
const sampling = (seed = 1) => ({ temperature: 1, topP: 1, topK: 0, seed });
/** Always searches for `a`, never answers. */
const SEARCHER = { '</think>': { '<search>': 1 }, '<search>': { a: 1 } };
const ANSWERER = { '</think>': { '<answer>': 1 }, '\\boxed{': { a: 1 } };

function start(
  options: {
    sampler?: TableSamplerOptions;
    tools?: ToolRunner;
    limits?: Partial<EpisodeLimits>;
    entropy?: EntropySettings;
  } = {},
) {
  const sampler = new TableSampler(options.sampler);
  const context = tableContext(options.tools);
  const episode = Episode.begin({
    context,
    sequence: sampler.open({ policyVersion: 3 }),
    promptTokens: protocol.renderPrompt([{ role: 'user', content: 'who?' }], []),
    limits: { maxToolCalls: 4, maxTokens: 200, ...options.limits },
    ...(options.entropy && { entropy: options.entropy }),
  });
  return { sampler, episode, context };
}

async function finish(episode: Episode, signal?: AbortSignal): Promise<void> {
  while (episode.endReason === null) {
    await episode.policyStep({ sampling: sampling(), ...(signal && { signal }) });
    if (episode.endReason === null) {
      await episode.toolStep({ offered: OFFERED, ...(signal && { signal }) });
    }
  }
}

const texts = (steps: readonly StepRecord[]) => steps.map(({ kind, text }) => `${kind}:${text}`);
const tokensOf = (steps: readonly StepRecord[]) => steps.flatMap((step) => [...step.tokens]);

describe('policyStep', () => {
  it('records what was sampled: tokens, log-probabilities and entropies of the table', async () => {
    const { episode, sampler } = start();
    const step = (await episode.policyStep({ sampling: sampling(4) })) as StepRecord;
    const prompt = episode.steps[0] as StepRecord;
    const path = [...prompt.tokens];
    step.tokens.forEach((token, t) => {
      const p = nextProbabilities(sampler.table, path);
      expect(step.logprobs?.[t]).toBeCloseTo(Math.log(p[token] as number), 5);
      expect(step.entropies?.[t]).toBeCloseTo(tokenEntropy(p), 5);
      path.push(token);
    });
    expect(step).toMatchObject({ kind: 'policy', policyVersion: 3, index: 1, parentId: prompt.id });
    expect(step.text).toBe(tokenizer.decode(step.tokens));
    expect(step.behaviourLogprobs).toBeNull();
    expect(episode.sequence.length).toBe(prompt.tokens.length + step.tokens.length);
  });

  it('keeps the behaviour log-probabilities when the draw was not at temperature 1', async () => {
    const { episode } = start();
    const step = await episode.policyStep({ sampling: { ...sampling(), temperature: 0 } });
    expect(step?.behaviourLogprobs?.every((logp) => logp === 0)).toBe(true);
    expect(step?.logprobs?.some((logp) => logp < -0.1)).toBe(true);
  });

  it('measures H on each step and dH against the first', async () => {
    const { episode } = start({ sampler: { table: tableWith(SEARCHER) } });
    await finish(episode);
    const policy = episode.steps.filter((step) => step.kind === 'policy');
    expect(policy.length).toBe(5);
    for (const step of policy) {
      const entropies = [...(step.entropies as Float32Array)];
      const mean = entropies.reduce((a, b) => a + b, 0) / entropies.length;
      expect(step.stepEntropy).toBeCloseTo(mean / Math.log(tokenizer.vocabularySize), 6);
      const delta = (step.stepEntropy as number) - (policy[0]?.stepEntropy as number);
      expect(step.deltaEntropy).toBeCloseTo(delta, 9);
    }
    expect(policy[0]?.deltaEntropy).toBe(0);
    // After a result the table is less sure of its thought: the jump that branching looks for.
    expect(policy[1]?.deltaEntropy).toBeGreaterThan(0);
  });

  it('measures H as the released code does, and keeps the entropies of all pieces', async () => {
    const entropy = { mode: 'released-code', tokens: 4 } as const;
    const wide = Object.fromEntries([...'abcdefghijklm'].map((piece) => [piece, 1 / 13]));
    const table = tableWith({ ...SEARCHER, '</result>|<think>': wide });
    const { episode, sampler } = start({ sampler: { table, entropyCandidates: 10 }, entropy });
    await finish(episode);
    const path: number[] = [];
    let cut = 0;
    for (const { kind, tokens, entropies, stepEntropy: H } of episode.steps) {
      const rows = Array.from(tokens, (token) => {
        const p = nextProbabilities(sampler.table, path);
        path.push(token);
        return p;
      });
      if (kind !== 'policy') continue;
      rows.forEach((p, t) => expect(entropies?.[t]).toBeCloseTo(tokenEntropy(p), 5));
      const V = tokenizer.vocabularySize;
      expect(H).toBeCloseTo(releasedCodeStepEntropy(rows.slice(0, 4), V), 6);
      if (rows.slice(0, 4).some((p) => p.filter((x) => x > 0).length > 10)) cut++;
    }
    expect(cut).toBeGreaterThan(0);
  });

  it('has no H of the released code from an engine that does not measure it', async () => {
    const { episode } = start({ entropy: { mode: 'released-code', tokens: 20 } });
    await expect(episode.policyStep({ sampling: sampling() })).rejects.toMatchObject({
      code: 'internal',
    });
  });

  it('ends with the answer', async () => {
    const { episode } = start({ sampler: { table: tableWith(ANSWERER) } });
    await episode.policyStep({ sampling: sampling() });
    expect(episode).toMatchObject({ endReason: 'answer', answer: 'a', malformed: null });
    expect(episode.formatError()).toBeNull();
  });

  it('ends with stop when the turn ends without an answer', async () => {
    const { episode } = start({ sampler: { table: { '</user>': { '<eos>': 1 } } } });
    await episode.policyStep({ sampling: sampling() });
    expect(episode.endReason).toBe('stop');
    expect(episode.formatError()).not.toBeNull();
  });

  it('never runs a malformed call', async () => {
    const tools = new FunctionTools({ search: { run: () => 'x' } });
    const table = tableWith({ ...SEARCHER, '<search>|a': { '</lookup>': 1 } });
    const { episode } = start({ sampler: { table }, tools });
    await finish(episode);
    expect(episode).toMatchObject({ endReason: 'stop', pendingCalls: [] });
    expect(episode.formatError()).toContain('tags');
    expect(tools.calls).toEqual([]);
  });

  it('reports tokens as they come', async () => {
    const { episode } = start();
    const seen: number[] = [];
    const step = await episode.policyStep({
      sampling: sampling(),
      onTokens: (piece) => seen.push(...piece.tokens),
    });
    expect(seen).toEqual([...(step as StepRecord).tokens]);
  });
});

describe('limits', () => {
  it.each([1, 2, 3, 5, 8, 13])('a cut at %i tokens adds no token', async (maxTokens) => {
    const { episode, sampler } = start({
      sampler: { table: tableWith(SEARCHER) },
      limits: { maxTokens },
    });
    await finish(episode);
    const policy = episode.steps.filter((step) => step.kind === 'policy');
    expect(episode.endReason).toBe('max_tokens');
    expect(tokensOf(policy)).toHaveLength(maxTokens);
    expect(sampler.sampledTokens).toBe(maxTokens);
    expect(episode.formatError()).toContain('max_tokens');
    expect(tokensOf(policy)).not.toContain(tokenOf('<eos>'));
  });

  it('ends before the call that is one too many', async () => {
    const tools = new FunctionTools({ search: { run: () => 'x' } });
    const { episode } = start({
      sampler: { table: tableWith(SEARCHER) },
      tools,
      limits: { maxToolCalls: 2 },
    });
    await finish(episode);
    expect(episode).toMatchObject({ endReason: 'max_tool_calls', toolCalls: 2 });
    expect(tools.calls).toHaveLength(2);
    expect(episode.leaf.kind).toBe('policy');
  });

  it('ends with context when the window is full, at any fill', async () => {
    for (let contextTokens = 7; contextTokens < 60; contextTokens++) {
      const { episode } = start({ sampler: { table: tableWith(SEARCHER), contextTokens } });
      await finish(episode);
      expect(episode.endReason).toBe('context');
      expect(tokensOf(episode.steps).length).toBe(episode.sequence.length);
      expect(episode.sequence.length).toBeLessThanOrEqual(contextTokens);
      expect(episode.steps.every((s) => s.kind !== 'policy' || s.tokens.length > 0)).toBe(true);
    }
  });

  it('keeps the call in the log whose result does not fit any more', async () => {
    const tools = new FunctionTools({ search: { run: () => 'y'.repeat(40) } });
    const { episode } = start({
      sampler: { table: tableWith(SEARCHER), contextTokens: 30 },
      tools,
    });
    await finish(episode);
    expect(episode).toMatchObject({ endReason: 'context', toolCalls: 1 });
    expect(episode.leaf.toolCall?.result).toBe('y'.repeat(40));
    expect(episode.leaf.tokens).toHaveLength(0);
  });

  it('refuses a prompt that does not fit', () => {
    expect(() => start({ sampler: { contextTokens: 5 } })).toThrowError(AppError);
  });
});

describe('toolStep', () => {
  it('appends the result as context and goes on', async () => {
    const table = tableWith({ ...SEARCHER, '</result>': { '<answer>': 1 }, '\\boxed{': { b: 1 } });
    const { episode } = start({ sampler: { table } });
    await finish(episode);
    expect(episode.steps.map((step) => step.kind)).toEqual(['prompt', 'policy', 'tool', 'policy']);
    const tool = episode.steps[2] as StepRecord;
    expect(tool.text).toBe('<result>found a</result>');
    expect(tool).toMatchObject({ logprobs: null, entropies: null, sampling: null });
    expect(tool.toolCall).toMatchObject({
      name: 'search',
      arguments: '{"query":"a"}',
      result: 'found a',
      error: null,
      served: 'live',
    });
    episode.steps.forEach((step, i) => {
      expect(step.parentId).toBe(i === 0 ? null : episode.steps[i - 1]?.id);
      expect(step.index).toBe(i);
    });
  });

  it('shows a failure and a time-out to the policy, and records their codes', async () => {
    for (const code of ['tool_failed', 'tool_timeout'] as const) {
      const tools = new FunctionTools({
        search: {
          run: () => {
            throw new AppError(code, 'no luck');
          },
        },
      });
      const { episode } = start({
        sampler: { table: tableWith(SEARCHER) },
        tools,
        limits: { maxToolCalls: 1 },
      });
      await finish(episode);
      const tool = episode.steps[2] as StepRecord;
      expect(tool.toolCall?.error).toBe(code);
      expect(tool.text).toBe('<result>error: no luck</result>');
      expect(episode.steps).toHaveLength(4);
    }
  });

  it('answers a call of a tool that was not offered with a text', async () => {
    const { episode } = start({ sampler: { table: tableWith(SEARCHER) } });
    await episode.policyStep({ sampling: sampling() });
    const [step] = await episode.toolStep({ offered: new Set(['lookup']) });
    expect(step?.toolCall).toMatchObject({ error: 'unknown_tool', effects: 'none' });
    expect(step?.toolCall?.result).toBe("error: unknown tool 'search'; offered: lookup");
    expect(episode.endReason).toBeNull();
  });

  it('runs several calls of one step; the last tool step holds all their tokens', async () => {
    const { episode } = start({ sampler: { table: tableWith(SEARCHER) } });
    await episode.policyStep({ sampling: sampling() });
    episode.pendingCalls.push({ id: 'call_2', name: 'lookup', arguments: '{"query":"c"}' });
    const steps = await episode.toolStep({ offered: OFFERED });
    expect(steps.map((step) => step.toolCall?.result)).toEqual(['found a', 'entry c']);
    expect(texts(steps)).toEqual(['tool:', 'tool:<result>found a;entry c</result>']);
    expect(steps[1]?.parentId).toBe(steps[0]?.id);
    expect(tokensOf(episode.steps).length).toBe(episode.sequence.length);
    await episode.policyStep({ sampling: sampling() });
    expect(() => episode.fork(2)).toThrowError(/after the last result/);
    expect(episode.fork(3).steps).toHaveLength(4);
  });
});

describe('cancellation', () => {
  it('keeps the tokens sampled so far and ends', async () => {
    const { episode } = start({ sampler: { table: tableWith(SEARCHER) } });
    const controller = new AbortController();
    let seen = 0;
    const step = await episode.policyStep({
      sampling: sampling(),
      signal: controller.signal,
      onTokens: () => {
        if (++seen === 3) controller.abort();
      },
    });
    expect(step?.tokens).toHaveLength(3);
    expect(episode).toMatchObject({ endReason: 'cancelled', pendingCalls: [] });
    expect(tokensOf(episode.steps).length).toBe(episode.sequence.length);
  });

  it('during a tool keeps the call, then ends', async () => {
    const controller = new AbortController();
    const tools = new FunctionTools({
      search: {
        run: (_query, signal) => {
          controller.abort();
          if (signal?.aborted) throw new AppError('request_cancelled', 'cancelled');
          return 'late';
        },
      },
    });
    const { episode } = start({ sampler: { table: tableWith(SEARCHER) }, tools });
    await finish(episode, controller.signal);
    expect(episode.endReason).toBe('cancelled');
    expect(episode.leaf.toolCall?.error).toBe('request_cancelled');
    const meta = {
      source: 'live',
      tenant: 'default',
      conversationId: null,
      taskId: null,
      trainingRunId: null,
      groupId: null,
      branchedFromStepId: null,
      reward: null,
    } as const;
    expect(episode.toRecord(meta)).toMatchObject({ status: 'cancelled', formatOk: false });
  });
});

describe('resume', () => {
  /** A path of the log: prompt, thought and call. */
  async function called() {
    const { episode, sampler, context } = start({ sampler: { table: tableWith(SEARCHER) } });
    await episode.policyStep({ sampling: sampling() });
    const answered = episode.pendingCalls.map(({ id = '', name, arguments: text }) => ({
      ...{ id, name, arguments: text, result: 'found it', error: null, durationMs: 5 },
      ...({ effects: 'writes', served: 'client' } as const),
    }));
    const tokens = protocol.renderToolResults([{ name: 'search', result: 'found it' }]);
    const continuation = { steps: episode.steps, answered, furtherMessages: false, tokens };
    const resume = (changes: Partial<Continuation> = {}, limits = {}) =>
      Episode.resume({
        context,
        sequence: sampler.open({ policyVersion: 3 }),
        continuation: { ...continuation, ...changes },
        limits: { maxToolCalls: 4, maxTokens: 200, ...limits },
      });
    return { stored: [...episode.steps], continuation, sampler, resume };
  }

  it('holds the stored tokens and the new ones, and logs only the new steps', async () => {
    const { stored, continuation, resume } = await called();
    const episode = resume();
    expect(episode.sequence.length).toBe(tokensOf(stored).length + continuation.tokens.length);
    expect(episode.steps.slice(0, 2)).toEqual(stored);
    expect(texts(episode.newSteps)).toEqual(['tool:<result>found it</result>']);
    expect(episode.leaf).toMatchObject({
      parentId: stored[1]?.id,
      index: 2,
      policyVersion: 3,
      toolCall: { ...continuation.answered[0] },
    });
    expect(episode).toMatchObject({ toolCalls: 1, endReason: null, pendingCalls: [] });
    expect(episode.sampledTokens).toBe(stored[1]?.tokens.length);
    const step = (await episode.policyStep({ sampling: sampling(2) })) as StepRecord;
    expect(tokensOf(episode.steps).length).toBe(episode.sequence.length);
    // H_init is that of the stored path's first policy step.
    const [H, first] = [step.stepEntropy as number, stored[1]?.stepEntropy as number];
    expect(step.deltaEntropy).toBeCloseTo(H - first, 9);
    expect(step.deltaEntropy).not.toBe(0);
    episode.end('cancelled');
    const { steps } = episode.toLog({
      source: 'live',
      ...{
        tenant: 'default',
        conversationId: null,
        taskId: null,
        trainingRunId: null,
        groupId: null,
      },
      ...{ branchedFromStepId: null, reward: null },
    });
    expect(steps?.map(({ index }) => index)).toEqual([2, 3]);
    expect(stored).toHaveLength(2);
  });

  it('messages behind the results become a prompt step, which holds all new tokens', async () => {
    const { continuation, resume } = await called();
    const question = protocol.renderPrompt([{ role: 'user', content: 'why?' }], []);
    const tokens = [...continuation.tokens, ...question];
    const episode = resume({ furtherMessages: true, tokens });
    expect(texts(episode.newSteps)).toEqual([
      'tool:',
      'prompt:<result>found it</result><user>why?</user>',
    ]);
    expect(episode.newSteps[1]?.toolCall).toBeNull();
  });

  it('judges the form of the newest question only', async () => {
    const { sampler, context, episode: first } = start({ sampler: { table: tableWith(ANSWERER) } });
    await first.policyStep({ sampling: sampling() });
    expect(first.endReason).toBe('answer');
    const episode = Episode.resume({
      context,
      sequence: sampler.open({ policyVersion: 3 }),
      continuation: {
        steps: first.steps,
        answered: [],
        furtherMessages: true,
        tokens: protocol.renderPrompt([{ role: 'user', content: 'why?' }], []),
      },
      limits: { maxToolCalls: 4, maxTokens: 200 },
    });
    await episode.policyStep({ sampling: sampling() });
    expect(episode.steps.map(({ kind }) => kind)).toEqual(['prompt', 'policy', 'prompt', 'policy']);
    expect(episode).toMatchObject({ endReason: 'answer' });
    expect(episode.formatError()).toBeNull();
  });

  it('refuses a path that does not fit with what is new', async () => {
    const { resume } = await called();
    expect(() => resume({ tokens: new Array<number>(600).fill(0) })).toThrowError(AppError);
  });
});

describe('fork', () => {
  it('shares the steps of the prefix, and goes its own way from the result', async () => {
    const { episode, sampler } = start({ sampler: { table: tableWith(SEARCHER) } });
    await finish(episode);
    const parentPath = texts(episode.steps);
    const fork = episode.fork(2);
    expect(fork.steps).toEqual(episode.steps.slice(0, 3));
    fork.steps.forEach((step, i) => expect(step).toBe(episode.steps[i]));
    expect(fork).toMatchObject({ endReason: null, toolCalls: 1 });
    expect(fork.initialEntropy).toBe(episode.initialEntropy);
    expect(fork.sampledTokens).toBe(episode.steps[1]?.tokens.length);

    await fork.policyStep({ sampling: sampling(99) });
    expect(fork.steps[3]?.parentId).toBe(episode.steps[2]?.id);
    expect(fork.steps[3]?.id).not.toBe(episode.steps[3]?.id);
    expect(texts(episode.steps)).toEqual(parentPath);
    expect(tokensOf(fork.steps).length).toBe(fork.sequence.length);
    const [H, first] = [fork.steps[3]?.stepEntropy as number, episode.initialEntropy as number];
    expect(fork.steps[3]?.deltaEntropy).toBeCloseTo(H - first, 9);

    fork.close();
    fork.close();
    episode.close();
    expect(sampler.openSequences).toBe(0);
  });

  it('from a policy step or a step that is not there is our own bug', async () => {
    const { episode } = start();
    await episode.policyStep({ sampling: sampling() });
    expect(() => episode.fork(1)).toThrowError(/internal/);
    expect(() => episode.fork(7)).toThrowError(/internal/);
  });
});
