/**
 * Random rows with shared prefixes, as the rollouts of some groups have them, for tests that packed
 * and flat rows are the same: trajectories that fork anywhere, groups that share nothing, rows that
 * are a prefix of another or equal to it, context between policy tokens and after the last.
 */
import type { Prng } from '../../prng.ts';
import type { TrainRow } from '../types.ts';

export interface ForestShape {
  vocabulary: number;
  rowsMax: number;
  tokensMax: number;
}

export function randomForest(prng: Prng, shape: ForestShape): TrainRow[] {
  const rows: Uint32Array[] = [];
  const count = 1 + prng.below(shape.rowsMax);
  for (let i = 0; i < count; i++) {
    const parent = rows.length > 0 && prng.below(5) > 0 ? prng.pick(rows) : new Uint32Array(0);
    const kept = parent.subarray(0, prng.below(parent.length + 1));
    const length = Math.max(2, kept.length + prng.below(shape.tokensMax - kept.length + 1));
    rows.push(Uint32Array.from({ length }, (_, t) => kept[t] ?? prng.below(shape.vocabulary)));
  }
  return rows.map((tokens) => trainRow(prng, tokens));
}

/**
 * Ratios on both sides of every clip, weights that are not all 1; the first token is context, and
 * at least one other is not.
 */
function trainRow(prng: Prng, tokens: Uint32Array): TrainRow {
  const values = (make: (t: number) => number) =>
    Float32Array.from(tokens, (_, t) => (t === 0 ? 0 : make(t)));
  const sampled = 1 + prng.below(tokens.length - 1);
  return {
    tokens,
    weights: values((t) => (t === sampled ? 1 : prng.pick([0, 0, 1, 1, 0.5]))),
    advantages: values(() => prng.gaussian()),
    oldLogprobs: values(() => -2.4 + prng.gaussian()),
    behaviourLogprobs: values(() => -2.4 + prng.gaussian()),
    referenceLogprobs: values(() => -2.4 + prng.gaussian()),
  };
}
