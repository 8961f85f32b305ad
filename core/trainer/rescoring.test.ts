/**
 * Scores under other weights than those that sampled: each policy step gets those of its own place
 * in its path, whatever shares it and however the rows are divided into runs.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rolloutGroups, type RolloutGroup } from '../arpo/rollout.ts';
import { parseSettings } from '../arpo/settings.ts';
import type { TrainingSession } from '../model/types.ts';
import type { StepRecord } from '../records.ts';
import { rescoredGroups, scoreRows } from './rescoring.ts';
import { createBigramSampler } from './testing/bigram-policy.ts';
import { colourTasks, createColourSetting, type ColourSetting } from './testing/colour-task.ts';
import { createTinySession } from './testing/tiny-session.ts';

let setting: ColourSetting;
let session: TrainingSession;
let groups: RolloutGroup[];
beforeAll(async () => {
  setting = createColourSetting();
  session = createTinySession(setting);
  groups = await rolloutGroups({
    sampler: createBigramSampler(setting.config, setting.freshWeights()),
    context: setting.context,
    tasks: colourTasks('red', 3),
    settings: parseSettings('arpo', { groupSize: 6, alpha: 1, beta: 0, maxTokens: 40 }),
    seed: 5,
    runId: null,
    version: 1,
    source: 'rollout',
  });
});
afterAll(async () => {
  await session.dispose();
  setting.remove();
});

const joined = (steps: readonly StepRecord[]): Uint32Array =>
  Uint32Array.from(steps.flatMap(({ tokens }) => [...tokens]));

/** The slow twin: a path alone, cut at its steps. */
async function scoredAlone(steps: readonly StepRecord[]): Promise<Map<string, Float32Array>> {
  const { logprobs } = await session.score([joined(steps)]);
  const found = new Map<string, Float32Array>();
  let at = 0;
  for (const { id, kind, tokens } of steps) {
    const own = logprobs[0]!.slice(at, at + tokens.length);
    if (kind === 'policy') found.set(id, own);
    at += tokens.length;
  }
  return found;
}

function expectClose(found: Float32Array | undefined, expected: Float32Array): void {
  expect(found?.length).toBe(expected.length);
  const gaps = expected.map((value, t) => Math.abs(value - found![t]!));
  expect(Math.max(...gaps)).toBeLessThan(2e-5);
}

describe('rescoredGroups', () => {
  it('gives every policy step, shared ones too, what its path alone gives', async () => {
    const shared = groups.flatMap(({ trajectories }) => trajectories).filter((t) => t.branch);
    expect(shared.length).toBeGreaterThan(0);
    const recorded = groups[0]!.trajectories[0]!.steps[1]!.logprobs!.slice();
    const done = await rescoredGroups(groups, { session, tokenBudget: 10_000 });
    for (const [i, group] of done.entries()) {
      expect(group.trajectories).toBe(groups[i]!.trajectories);
      const policySteps = new Set<string>();
      for (const { steps } of group.trajectories) {
        for (const [id, alone] of await scoredAlone(steps)) {
          expectClose(group.rescored?.get(id), alone);
          policySteps.add(id);
        }
      }
      expect(new Set(group.rescored?.keys())).toEqual(policySteps);
    }
    // What was recorded is what the behaviour was, and is another policy's.
    expect(groups[0]!.trajectories[0]!.steps[1]!.logprobs).toEqual(recorded);
    const first = groups[0]!.trajectories[0]!.steps[1]!.id;
    expect(done[0]!.rescored?.get(first)).not.toEqual(recorded);
    expect(groups[0]!.rescored).toBeUndefined();
  });

  it('says the same however little fits a run', async () => {
    const whole = await rescoredGroups(groups, { session, tokenBudget: 10_000 });
    for (const tokenBudget of [1, 60, 200]) {
      const split = await rescoredGroups(groups, { session, tokenBudget });
      for (const [i, { rescored }] of split.entries()) {
        const expected = whole[i]!.rescored!;
        expect([...rescored!.keys()]).toEqual([...expected.keys()]);
        for (const [id, logprobs] of expected) expectClose(rescored!.get(id), logprobs);
      }
    }
  });

  it('leaves alone what was scored before, and scores nothing twice', async () => {
    const [group] = groups as [RolloutGroup];
    const { steps } = group.trajectories[0]!;
    const known = new Map([[steps[1]!.id, Float32Array.of(-7)]]);
    const options = { session, tokenBudget: 10_000 };
    const [done] = await rescoredGroups([{ ...group, rescored: known }], options);
    expect(done!.rescored!.get(steps[1]!.id)).toEqual(Float32Array.of(-7));
    const others = [...(await scoredAlone(steps))].filter(([id]) => id !== steps[1]!.id);
    for (const [id, alone] of others) expectClose(done!.rescored!.get(id), alone);

    let rows = 0;
    const counting: Pick<TrainingSession, 'config' | 'score'> = {
      config: session.config,
      score: (batch, form) => {
        rows += batch.length;
        return session.score(batch, form);
      },
    };
    const again = await rescoredGroups([done!], { session: counting, tokenBudget: 10_000 });
    expect(rows).toBe(0);
    expect(again[0]!.rescored).toEqual(done!.rescored);
  });
});

describe('scoreRows', () => {
  it('aligns numbers with tokens, and asks nothing of a row of one token', async () => {
    const rows = [Uint32Array.of(7), joined(groups[0]!.trajectories[0]!.steps), Uint32Array.of()];
    const { logprobs, entropies } = await scoreRows(rows, { session, tokenBudget: 10_000 });
    const alone = await session.score([rows[1]!]);
    expect(logprobs[0]).toEqual(Float32Array.of(0));
    expect(entropies[2]).toEqual(Float32Array.of());
    expectClose(logprobs[1], alone.logprobs[0]!);
    expectClose(entropies[1], alone.entropies[0]!);
    expect(Math.min(...entropies[1]!.subarray(1))).toBeGreaterThan(0);
  });

  it('stops between runs when aborted', async () => {
    const rows = groups[0]!.trajectories.map(({ steps }) => joined(steps));
    const stop = new AbortController();
    const stopping: Pick<TrainingSession, 'config' | 'score'> = {
      config: session.config,
      score: (batch, form) => {
        stop.abort(new Error('stop asked'));
        return session.score(batch, form);
      },
    };
    const options = { session: stopping, tokenBudget: 1, signal: stop.signal };
    await expect(scoreRows(rows, options)).rejects.toThrow('stop asked');
  });
});
