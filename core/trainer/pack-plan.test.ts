/** What a division of a mini-batch into runs keeps to, on random forests and on known shapes. */
import { describe, expect, it } from 'vitest';
import { packedSizes, segmentsOf, sortRows } from '../model/packed-layout.ts';
import { randomForest } from '../model/testing/random-forests.ts';
import type { ModelConfig } from '../model/types.ts';
import { Prng } from '../prng.ts';
import { predictionsPerRun } from './memory-budget.ts';
import { planRuns, type PlannedRow, type PlannedRun } from './pack-plan.ts';

const CONFIG: ModelConfig = {
  modelType: 'llama',
  layers: 4,
  hidden: 192,
  heads: 6,
  kvHeads: 2,
  headDim: 32,
  intermediate: 512,
  vocabulary: 1536,
  contextTokens: 4096,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};

/** Tokens that a run forwards. */
function forwarded(rows: readonly PlannedRow[], { rows: indices, form }: PlannedRun): number {
  const run = indices.map((index) => rows[index]!);
  const used = run.map((row) => row.used);
  if (form === 'flat') return run.length * Math.max(...used);
  const { lengths, shared } = sortRows(
    run.map(({ tokens }) => tokens),
    used,
  );
  return packedSizes(segmentsOf(lengths, shared)).tokens;
}

/** `count` rows of `own` tokens after a prompt of `shared`. */
function group(prng: Prng, count: number, shared: number, own: number): PlannedRow[] {
  const prompt = Array.from({ length: shared }, () => prng.below(1000));
  return Array.from({ length: count }, () => {
    const answer = Array.from({ length: own }, () => prng.below(1000));
    const tokens = Uint32Array.from([...prompt, ...answer]);
    return { tokens, used: tokens.length - 1, predictions: own };
  });
}

describe('planRuns', () => {
  it.each([1, 2, 3])('runs each row once and keeps to its budgets, seed %i', (seed) => {
    const prng = new Prng(seed);
    for (let trial = 0; trial < 100; trial++) {
      // Few predictions fit a run at this vocabulary.
      const config = { ...CONFIG, vocabulary: 1_000_000 };
      const rows = randomForest(prng, { vocabulary: 9, rowsMax: 40, tokensMax: 60 }).map(
        ({ tokens }): PlannedRow => {
          const used = prng.below(tokens.length);
          return { tokens, used, predictions: prng.below(used + 1) };
        },
      );
      const tokenBudget = 1 + prng.below(150);
      for (const packing of ['auto', 'flat', 'packed'] as const) {
        const plan = planRuns(rows, { config, packing, tokenBudget });
        const wanted = rows.flatMap(({ used }, i) => (used > 0 ? [i] : []));
        expect(plan.flatMap((run) => run.rows).sort((a, b) => a - b)).toEqual(wanted);
        if (packing !== 'auto') for (const { form } of plan) expect(form).toBe(packing);
        for (const run of plan.filter(({ rows: indices }) => indices.length > 1)) {
          const longest = Math.max(...run.rows.map((index) => rows[index]!.used));
          const long = run.form === 'packed' && longest > tokenBudget;
          const room = long ? 1.25 * longest : tokenBudget;
          expect(forwarded(rows, run)).toBeLessThanOrEqual(room);
          const predictions = run.rows.reduce((sum, i) => sum + rows[i]!.predictions, 0);
          expect(predictions).toBeLessThanOrEqual(predictionsPerRun(config));
        }
      }
    }
  });

  it('shares a prompt that is longer than the budget', () => {
    const rows = group(new Prng(4), 16, 2_048, 96);
    const options = { config: CONFIG, packing: 'auto', tokenBudget: 2_048 } as const;
    const plan = planRuns(rows, options);
    const total = plan.reduce((sum, run) => sum + forwarded(rows, run), 0);
    expect(plan.map(({ form }) => form)).toEqual(plan.map(() => 'packed'));
    expect(total).toBeLessThan((16 * 2_143) / 4);
  });

  it('packs what shares a prompt and leaves what shares nothing flat', () => {
    const prng = new Prng(5);
    const options = { config: CONFIG, packing: 'auto', tokenBudget: 2_048 } as const;
    const forms = (rows: PlannedRow[]) => new Set(planRuns(rows, options).map(({ form }) => form));
    expect(forms(group(prng, 16, 500, 60))).toEqual(new Set(['packed']));
    expect(forms(Array.from({ length: 16 }, () => group(prng, 1, 0, 256)).flat())).toEqual(
      new Set(['flat']),
    );
  });
});
