/**
 * Log-probabilities of tokens that other weights sampled, under the weights at the start of the
 * update: the `old` of arpo.md section 6 for off-policy data. What was recorded stays what the
 * behaviour was.
 */
import type { RolloutGroup } from '../arpo/rollout.ts';
import { must } from '../assert.ts';
import type { ScoreResult, TrainingSession } from '../model/types.ts';
import type { StepRecord } from '../records.ts';
import { planRuns } from './pack-plan.ts';

export interface ScoreOptions {
  session: Pick<TrainingSession, 'config' | 'score'>;
  /** Tokens of one run. */
  tokenBudget: number;
  signal?: AbortSignal;
}

/** The groups with every policy step in `rescored`; entries that are there already stay. */
export async function rescoredGroups(
  groups: readonly RolloutGroup[],
  options: ScoreOptions,
): Promise<RolloutGroup[]> {
  const paths: StepRecord[][] = [];
  const wanted = new Set<string>();
  for (const group of groups) {
    for (const { steps } of group.trajectories) {
      const fresh = steps.filter(({ id }) => !wanted.has(id) && group.rescored?.has(id) !== true);
      if (!fresh.some(({ kind }) => kind === 'policy')) continue;
      for (const { id } of fresh) wanted.add(id);
      paths.push(steps);
    }
  }
  const { logprobs: scored } = await scoreRows(paths.map(tokensOf), options);
  const found = new Map<string, Float32Array>();
  paths.forEach((steps, i) => {
    let at = 0;
    for (const { id, kind, tokens } of steps) {
      const end = at + tokens.length;
      if (kind === 'policy' && !found.has(id)) {
        found.set(id, must(scored[i], 'a score of each path').slice(at, end));
      }
      at = end;
    }
  });
  return groups.map((group) => ({ ...group, rescored: rescoredOf(group, found) }));
}

/** ln p and entropy of each token of each row, aligned with it (0 at index 0). */
export async function scoreRows(
  rows: readonly Uint32Array[],
  { session, tokenBudget, signal }: ScoreOptions,
): Promise<ScoreResult> {
  const empty = (): Float32Array[] => rows.map((row) => new Float32Array(row.length));
  const result = { logprobs: empty(), entropies: empty() };
  const planned = rows.map((tokens) => {
    const predictions = Math.max(0, tokens.length - 1);
    return { tokens, used: predictions, predictions };
  });
  const plan = planRuns(planned, { config: session.config, packing: 'auto', tokenBudget });
  for (const { rows: indices, form } of plan) {
    signal?.throwIfAborted();
    const batch = indices.map((i) => must(rows[i], 'a planned row'));
    const { logprobs, entropies } = await session.score(batch, form);
    indices.forEach((index, k) => {
      result.logprobs[index] = must(logprobs[k], 'logprobs of each row');
      result.entropies[index] = must(entropies[k], 'entropies of each row');
    });
  }
  return result;
}

function rescoredOf(
  group: RolloutGroup,
  found: ReadonlyMap<string, Float32Array>,
): Map<string, Float32Array> {
  const rescored = new Map(group.rescored);
  for (const { steps } of group.trajectories) {
    for (const { id } of steps) {
      const logprobs = found.get(id);
      if (logprobs !== undefined && !rescored.has(id)) rescored.set(id, logprobs);
    }
  }
  return rescored;
}

function tokensOf(steps: readonly StepRecord[]): Uint32Array {
  const tokens = new Uint32Array(steps.reduce((sum, step) => sum + step.tokens.length, 0));
  let at = 0;
  for (const step of steps) {
    tokens.set(step.tokens, at);
    at += step.tokens.length;
  }
  return tokens;
}
