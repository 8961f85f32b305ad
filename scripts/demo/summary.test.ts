/** The summary's figures and verdict, and the table made of them. */
import { describe, expect, it } from 'vitest';
import type { Task } from '../../core/records.ts';
import { WAYS, type Answer, type Way } from './answer.ts';
import type { Examination } from './examination.ts';
import { summarise, type Findings } from './summary.ts';
import { alignedRows, resultText } from './table.ts';

const task = (family: string): Task => ({
  id: `task_${family}`,
  family,
  split: 'test',
  question: 'q',
  truths: ['a'],
  verifier: 'exact',
  tools: [],
  metadata: {},
});

const answer = (way: Way, family: string, correct: boolean, version: number): Answer => ({
  task: task(family),
  way,
  version,
  correct,
  score: Number(correct),
  reward: Number(correct),
  formatOk: true,
  toolCalls: 2,
  trajectoryId: 'traj_1',
});

/** Four answers a way, `right` of them correct. */
function examination(right: number, version: number): Examination {
  const answers = WAYS.flatMap((way) =>
    [0, 1, 2, 3].map((i) => answer(way, i % 2 === 0 ? 'math' : 'knowledge', i < right, version)),
  );
  return { answers, failures: [] };
}

function findings(change: Partial<Findings> = {}): Findings {
  return {
    seed: 1,
    questions: 4,
    before: examination(1, 1),
    after: examination(3, 2),
    live: { answers: [answer('chat', 'math', true, 1)], failures: [] },
    training: {
      run: {
        id: 'trn_1',
        object: 'training.run',
        status: 'completed',
        trigger: 'request',
        algorithm: 'arpo',
        settings: {},
        base_version: 1,
        candidate_version: 2,
        progress: { step: 2, steps: 2 },
        counts: {
          rollouts: 256,
          branches: 100,
          tool_calls_executed: 300,
          tool_calls_saved: 120,
          tokens_sampled: 9_000,
        },
        gate: null,
        error: null,
        created_at: '2026-01-01T00:00:00.000Z',
        started_at: '2026-01-01T00:00:01.000Z',
        ended_at: '2026-01-01T00:01:31.000Z',
      },
      steps: [
        { step: 1, values: { reward_mean: 0.1, accuracy: 0.2 } },
        { step: 2, values: { reward_mean: 0.3, accuracy: 0.4 } },
      ],
    },
    ...change,
  };
}

describe('summarise', () => {
  it('has figures by family and way, versions, the curve and the time', () => {
    const summary = summarise(findings());
    expect(summary.before.scores.agent['all']?.accuracy).toBe(0.25);
    expect(summary.after.scores.chat['math']).toMatchObject({ tasks: 2, accuracy: 1 });
    expect(summary.after.versions).toEqual({ 2: 8 });
    expect(summary.curve[1]).toEqual({ step: 2, rewardMean: 0.3, accuracy: 0.4 });
    expect(summary.trainingSeconds).toBe(90);
    expect(summary.problems).toEqual([]);
  });

  it('finds fault with a failed request', () => {
    const failures = [{ way: 'chat' as const, taskId: 'task_math', message: 'broken' }];
    const summary = summarise(findings({ live: { answers: [], failures } }));
    expect(summary.requests).toEqual({ answers: 16, failed: 1, failures });
    expect(summary.problems).toEqual(['1 request failed']);
  });

  it('finds fault with an accuracy that did not rise, and with a swap that did not happen', () => {
    const { problems } = summarise(findings({ after: examination(1, 1) }));
    expect(problems).toEqual([
      'the accuracy of agent runs did not rise: 25.0 % before, 25.0 % after',
      'after the swap to 2, versions 1 answered',
    ]);
  });

  it('finds fault with a run that the gate refused', () => {
    const { training } = findings();
    const run = { ...training.run, status: 'rejected' as const, error: 'worse' };
    const { problems } = summarise(findings({ training: { ...training, run } }));
    expect(problems).toEqual(['the training run is rejected: worse']);
  });
});

it('shows before and after by family, and the counts', () => {
  const text = resultText(summarise(findings()));
  expect(text).toMatch(/^all +4 +25\.0 % -> 75\.0 % +\+50\.0 +0\.0 % -> 0\.0 % +2\.00 -> 2\.00$/m);
  expect(text).toMatch(/^knowledge +2 +0\.0 % -> 50\.0 %/m);
  expect(text).toMatch(/^tool calls executed in training +300$/m);
  expect(text).toMatch(/^answers after +8 by version 2$/m);
  expect(text).toMatch(/^failed requests +0/m);
});

it('aligns columns', () => {
  expect(
    alignedRows([
      ['name', 'n', 'm'],
      ['a', '100', '2'],
    ]),
  ).toBe('name    n  m\na     100  2');
});
