/** Which rated conversations become questions, on which side, and why others do not. */
import { describe, expect, it } from 'vitest';
import type { ToolRunner } from '../ports.ts';
import type { LiveSample } from '../records.ts';
import { liveQuestions } from './live-questions.ts';
import { liveSample, toolStep } from './testing/live-samples.ts';

const tools: ToolRunner = {
  has: (name) => name !== 'gone',
  specs: (names) =>
    names.map((name) => ({
      name,
      description: '',
      parameters: {},
      effects: name === 'mail' ? 'writes' : 'none',
    })),
  call: () => Promise.reject(new Error('no tool is called')),
};

const limits = { maxToolCalls: 2, maxTokens: 7 };

const questions = (samples: readonly LiveSample[], heldOut = 0) =>
  liveQuestions(samples, { tools, version: 3, maxStaleness: 8, limits, heldOut });

describe('liveQuestions', () => {
  it('puts conversations of one question together, newest first', () => {
    const { train, heldOut, leftOut } = questions([
      liveSample({ question: 'a', answer: 'Ohio', reward: 1, tools: ['search'] }),
      liveSample({ question: 'b', answer: '12', reward: 1 }),
      liveSample({ question: 'a', answer: 'Iowa', reward: -1, tools: ['search'] }),
    ]);
    expect(heldOut).toEqual([]);
    expect(leftOut).toEqual({});
    expect(train.map(({ task, logged }) => [task.question, task.truths, logged.length])).toEqual([
      ['a', ['Ohio'], 2],
      ['b', ['12'], 1],
    ]);
    const [a, b] = train.map(({ task }) => task);
    expect(a).toMatchObject({ tools: ['search'], verifier: 'qa-f1', family: 'live' });
    expect(b).toMatchObject({ tools: [], verifier: 'math' });
    expect(a?.id).not.toBe(b?.id);
  });

  it('leaves out what cannot be rebuilt here, and says why', () => {
    const writes = toolStep({ effects: 'writes' });
    const unknown = toolStep({ error: 'unknown_tool' });
    const client = toolStep({ served: 'client' });
    const { train, leftOut } = questions([
      liveSample({ tools: ['mail'] }),
      liveSample({ toolSteps: [writes] }),
      liveSample({ tools: ['gone'] }),
      liveSample({ toolSteps: [unknown] }),
      liveSample({ toolSteps: [client] }),
      liveSample({ clientTools: true }),
      liveSample({ status: 'cancelled' }),
      liveSample({ question: 'disliked', reward: -1 }),
      liveSample({ question: 'disliked', reward: 0 }),
    ]);
    expect(train).toEqual([]);
    expect(leftOut).toEqual({
      effects: 2,
      unknown_tool: 2,
      client_tools: 2,
      not_completed: 1,
      no_liked_answer: 2,
    });
  });

  it('leaves out what a limit ended, be it one of its own', () => {
    const { train, leftOut } = questions([
      liveSample({ question: 'a', answer: 'Ohio' }),
      liveSample({ question: 'a', endReason: 'stop' }),
      liveSample({ question: 'a', endReason: 'max_tool_calls', toolSteps: [toolStep()] }),
      liveSample({ question: 'a', endReason: 'max_tokens' }),
      liveSample({ question: 'a', endReason: 'context' }),
    ]);
    expect(leftOut).toEqual({ not_completed: 3 });
    expect(train[0]?.logged.map(({ trajectory }) => trajectory.endReason)).toEqual([
      'answer',
      'stop',
    ]);
  });

  it('reads the ratings of old versions, but trains on no tokens of theirs', () => {
    const { train, leftOut } = liveQuestions(
      [
        liveSample({ question: 'a', answer: 'Ohio', reward: 1, version: 1 }),
        liveSample({ question: 'a', answer: 'Iowa', reward: 0, version: 11 }),
      ],
      { tools, version: 10, maxStaleness: 8, limits, heldOut: 0 },
    );
    expect(leftOut).toEqual({ stale: 1 });
    expect(train[0]?.logged.map(({ trajectory }) => trajectory.answer)).toEqual(['Iowa']);
    expect(train[0]?.answers.judge({ answer: 'ohio', formatError: null })?.reward).toBe(1);
  });

  it('trains on no tokens that left a fork no room', () => {
    const { train, leftOut } = questions([
      liveSample({ question: 'a', toolSteps: [toolStep(), toolStep()] }),
      liveSample({ question: 'a', toolSteps: [toolStep(), toolStep(), toolStep()] }),
    ]);
    expect(leftOut).toEqual({ over_limit: 1 });
    expect(train[0]?.logged.map(({ trajectory }) => trajectory.toolCalls)).toEqual([2]);
  });

  it('trains on no tokens that follow another prompt', () => {
    const { train, leftOut } = questions([
      liveSample({ question: 'a', promptTokens: [1, 2] }),
      liveSample({ question: 'a', promptTokens: [1, 3] }),
      liveSample({ question: 'a', promptTokens: [1] }),
    ]);
    expect(leftOut).toEqual({ other_prompt: 2 });
    expect([...(train[0]?.task.promptTokens ?? [])]).toEqual([1, 2]);
  });

  it('holds a share of the questions out, always the same ones', () => {
    const samples = Array.from({ length: 400 }, (_, i) => liveSample({ question: `q${i % 200}` }));
    const names = (list: ReturnType<typeof questions>['train']) =>
      list.map(({ task }) => task.question);
    const first = questions(samples, 0.2);
    expect(first.heldOut.length).toBeGreaterThan(20);
    expect(first.heldOut.length).toBeLessThan(60);
    expect(new Set([...names(first.train), ...names(first.heldOut)]).size).toBe(200);
    const later = questions(samples.slice(50, 90), 0.2);
    for (const name of names(later.heldOut)) expect(names(first.heldOut)).toContain(name);
    for (const name of names(later.train)) expect(names(first.train)).toContain(name);
    expect(questions(samples, 0).heldOut).toEqual([]);
  });
});
