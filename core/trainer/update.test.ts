/**
 * One policy update: what is dropped, how mini-batches are cut, that it goes the right way, and
 * that the division of rows into runs changes nothing.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isZeroVariance } from '../arpo/advantage.ts';
import { tokenObjective } from '../arpo/loss.ts';
import type { RolloutGroup } from '../arpo/rollout.ts';
import { rolloutGroups } from '../arpo/rollout.ts';
import { parseSettings } from '../arpo/settings.ts';
import { trainRows, type PolicyRow } from '../arpo/train-rows.ts';
import type { Weights } from '../model/types.ts';
import { initAdamW } from './adamw.ts';
import { rescoredGroups } from './rescoring.ts';
import { createBigramSampler, createBigramSession, tableOf } from './testing/bigram-policy.ts';
import type { ColourSetting } from './testing/colour-task.ts';
import { colourTasks, createColourSetting } from './testing/colour-task.ts';
import { createTinySession } from './testing/tiny-session.ts';
import { miniBatches, updatePolicy } from './update.ts';
import { copyOf } from './weight-lag.ts';

let setting: ColourSetting;
let groups: RolloutGroup[];
beforeAll(async () => {
  setting = createColourSetting();
  groups = await rolloutGroups({
    sampler: createBigramSampler(setting.config, setting.freshWeights()),
    context: setting.context,
    tasks: colourTasks('red', 8),
    settings: parseSettings('grpo', { groupSize: 6, maxTokens: 40 }),
    seed: 5,
    runId: null,
    version: 1,
    source: 'rollout',
  });
});
afterAll(() => setting.remove());

const rewards = (group: RolloutGroup): number[] => group.trajectories.map(({ reward }) => reward);

/** A group all of whose rewards are equal. */
const dull = (group: RolloutGroup): RolloutGroup => ({
  ...group,
  trajectories: group.trajectories.map((trajectory) => ({ ...trajectory, reward: 1 })),
});

async function update(
  some: readonly RolloutGroup[],
  overrides: Record<string, unknown>,
): Promise<{ weights: Weights; figures: Record<string, number>; updates: number }> {
  const weights = setting.freshWeights();
  const session = createBigramSession(setting.config, weights);
  const optimiser = initAdamW(weights);
  const settings = parseSettings('grpo', { groupSize: 6, promptsPerStep: 8, ...overrides });
  const figures = await updatePolicy(some, { session, optimiser, settings, tokenBudget: 300 });
  return { weights, figures, updates: optimiser.step };
}

describe('miniBatches', () => {
  const options = parseSettings('grpo', { miniBatches: 3 });

  it('holds whole groups, each once, without those that teach nothing', () => {
    const mixed = groups.map((group, i) => (i % 4 === 0 ? dull(group) : group));
    const kept = mixed.filter((group) => !isZeroVariance(rewards(group)));
    const expected = kept.map((group) => trainRows(group, options));
    const batches = miniBatches(mixed, options);
    expect(batches.length).toBe(3);
    expect(batches.flatMap(({ rows }) => rows)).toEqual(expected.flat());
    for (const { rows } of batches) expect(rows.length % 6).toBe(0);
  });

  it('makes fewer when there are fewer groups, and none of nothing', () => {
    const useful = groups.filter((group) => !isZeroVariance(rewards(group)));
    for (const count of [1, 2, 3, 4]) {
      expect(miniBatches(useful.slice(0, count), options).length).toBe(Math.min(count, 3));
    }
    expect(miniBatches(groups.map(dull), options)).toEqual([]);
  });
});

describe('updatePolicy', () => {
  it('makes answers with a better reward likelier, and worse ones less likely', async () => {
    const { weights } = await update(groups, { learningRate: 0.01, warmupSteps: 0 });
    const before = createBigramSession(setting.config, setting.freshWeights());
    const after = createBigramSession(setting.config, weights);
    const rows = miniBatches(groups, parseSettings('grpo')).flatMap((batch) => batch.rows);
    const loss = { epsLow: 0.2, epsHigh: 0.2, dualClip: 3, weightSum: 1 };
    const [old, now] = [
      await before.lossAndGradients(rows, loss),
      await after.lossAndGradients(rows, loss),
    ];
    expect(now.loss).toBeLessThan(old.loss);
  });

  it('leaves the weights alone when no group teaches anything, and says so', async () => {
    const { weights, figures, updates } = await update(groups.map(dull), {});
    expect(figures).toEqual({ zero_variance_share: 1, tokens_trained: 0 });
    expect(updates).toBe(0);
    expect(tableOf(weights)).toEqual(tableOf(setting.freshWeights()));
  });

  it('makes one optimiser update a mini-batch, with one warm-up over training steps', async () => {
    const one = await update(groups, { learningRate: 0.1, warmupSteps: 4 });
    expect(one.updates).toBe(1);
    expect(one.figures['learning_rate']).toBeCloseTo(0.025, 12);
    const four = await update(groups, { learningRate: 0.1, warmupSteps: 4, miniBatches: 4 });
    expect(four.updates).toBe(4);
    // The last mini-batch of the first of four warm-up steps is as warm as that whole step.
    expect(four.figures['learning_rate']).toBeCloseTo(0.025, 12);
  });

  it('reports clip share and KL of later mini-batches against the recorded tokens', async () => {
    const settings = { learningRate: 1, warmupSteps: 0, miniBatches: 2 };
    const { figures } = await update(groups, settings);
    const batches = miniBatches(groups, parseSettings('grpo', { miniBatches: 2 }));
    const [first, second] = batches.map(({ rows }) => rows) as [PolicyRow[], PolicyRow[]];
    // The state that the second mini-batch meets: one update on the first alone.
    const weights = setting.freshWeights();
    const session = createBigramSession(setting.config, weights);
    const half = groups.filter((group) => !isZeroVariance(rewards(group)));
    const alone = half.slice(0, Math.floor(half.length / 2));
    await updatePolicy(alone, {
      session,
      optimiser: initAdamW(weights),
      settings: parseSettings('grpo', { ...settings, miniBatches: 1, groupSize: 6 }),
      tokenBudget: 300,
    });
    const scored = await session.score(second.map((row) => row.tokens));
    const clip = { epsLow: 0.2, epsHigh: 0.2, dualClip: 3 };
    let kl = 0;
    let clipped = 0;
    second.forEach((row, i) => {
      row.weights.forEach((weight, t) => {
        if (weight === 0) return;
        const logp = scored.logprobs[i]?.[t] as number;
        const old = row.oldLogprobs[t] as number;
        kl += Math.exp(logp - old) - 1 - (logp - old);
        const { gradient } = tokenObjective(logp, old, row.advantages[t] as number, clip);
        if (gradient === 0 && row.advantages[t] !== 0) clipped++;
      });
    });
    const tokens = [...first, ...second].reduce(
      (sum, row) => sum + row.weights.filter((weight) => weight > 0).length,
      0,
    );
    expect(clipped).toBeGreaterThan(0);
    expect(figures['clip_share']).toBeCloseTo(clipped / tokens, 6);
    expect(figures['approx_kl']).toBeCloseTo(kl / tokens, 4);
    expect(figures['tokens_trained']).toBe(tokens);
  });
});

describe('the division into runs', () => {
  /** Two mini-batches, two passes, behaviours of another policy, a reference, entropy. */
  const EVERYTHING = {
    ...{ groupSize: 6, promptsPerStep: 8, rolloutLag: 1, miniBatches: 2, epochs: 2 },
    ...{ klCoefficient: 0.1, entropyCoefficient: 0.01, learningRate: 0.01, warmupSteps: 0 },
  };

  /** One step of a transformer on groups that another policy sampled. */
  async function step(tokenBudget: number, packing: 'flat' | 'packed' | 'auto') {
    const session = createTinySession(setting);
    const reference = createTinySession(setting);
    const before = copyOf(session.weights);
    const options = { session, tokenBudget };
    const figures = await updatePolicy(await rescoredGroups(groups, options), {
      ...{ ...options, reference },
      optimiser: initAdamW(session.weights),
      settings: parseSettings('grpo', { ...EVERYTHING, packing }),
    });
    await session.dispose();
    await reference.dispose();
    const changes = [...session.weights].flatMap(([name, { data }]) => [
      ...data.map((value, i) => value - before.get(name)!.data[i]!),
    ]);
    return { figures, changes };
  }

  const norm = (values: readonly number[]): number => Math.hypot(...values);
  /** Figures of how it was computed, which differ by intent. */
  const HOW = ['tokens_forwarded', 'forwarded_per_trained', 'packed_share'];

  it('changes neither the figures of a step nor its weights beyond rounding', async () => {
    const whole = await step(100_000, 'flat');
    expect(norm(whole.changes)).toBeGreaterThan(0);
    expect(whole.figures['importance_weight_mean']).not.toBe(1);
    expect(whole.figures['clip_share']).toBeGreaterThan(0);
    const forwarded = new Set([whole.figures['tokens_forwarded']]);
    for (const [tokenBudget, packing] of [
      [1, 'flat'],
      [90, 'flat'],
      [90, 'packed'],
      [300, 'auto'],
      [100_000, 'packed'],
    ] as const) {
      const { figures, changes } = await step(tokenBudget, packing);
      forwarded.add(figures['tokens_forwarded']);
      expect(Object.keys(figures)).toEqual(Object.keys(whole.figures));
      for (const [name, value] of Object.entries(whole.figures)) {
        if (HOW.includes(name)) continue;
        const gap = Math.abs(figures[name]! - value);
        const bound = 1e-5 * (1 + Math.abs(value));
        expect(gap, `${name}, ${packing}, ${tokenBudget}`).toBeLessThan(bound);
      }
      const apart = norm(changes.map((change, i) => change - whole.changes[i]!));
      expect(apart / norm(whole.changes)).toBeLessThan(1e-4);
    }
    // They did divide the rows otherwise.
    expect(forwarded.size).toBeGreaterThan(3);
  });
});
