/**
 * Rollouts as rows of a training batch in the flat form (arpo.md section 6): one row a trajectory,
 * its whole path from the prompt to the leaf, loss only on tokens that the policy itself sampled. A
 * token that several trajectories share occurs in the row of each. Everything that the settings of
 * advantage and loss say about single tokens is in the rows' weights and advantages; the rest is in
 * the graph (core/model/policy-loss.ts).
 */
import { assert, must } from '../assert.ts';
import type { TrainRow } from '../model/types.ts';
import type { StepRecord } from '../records.ts';
import { sequenceDivisor, type Aggregate } from './aggregate.ts';
import { importanceWeights, type ImportanceSettings } from './importance.ts';
import type { RolloutGroup } from './rollout.ts';
import { tokenAdvantages, type AdvantageSettings, type StepAdvantage } from './token-advantage.ts';

/** The settings on which rows depend. */
export type RowSettings = AdvantageSettings & ImportanceSettings & { aggregate: Aggregate };

export interface PolicyRow extends TrainRow {
  behaviourLogprobs: Float32Array;
  /** Importance weight of each policy token, which is a factor of its loss weight; else 0. */
  importance: Float32Array;
  /** The geometric mask left the sequence out: all its weights are 0. */
  leftOut: boolean;
}

/** What rows are made from. */
export type RowGroup = Pick<RolloutGroup, 'trajectories' | 'rescored'>;

/** One row for each trajectory of a group, in its order. */
export function trainRows(group: RowGroup, settings: RowSettings): PolicyRow[] {
  const advantages = tokenAdvantages(group.trajectories, settings);
  return group.trajectories.map(({ steps }, i) => {
    const row = emptyRow(steps.reduce((sum, step) => sum + step.tokens.length, 0));
    let start = 0;
    for (const step of steps) {
      row.tokens.set(step.tokens, start);
      if (step.kind === 'policy') {
        assert(start > 0, 'a policy step has a prompt');
        fillStep(row, start, { step, old: oldOf(step, group), ...advantages.ofStep(i, step) });
      }
      start += step.tokens.length;
    }
    weigh(row, settings);
    return row;
  });
}

function emptyRow(length: number): PolicyRow {
  return {
    tokens: new Uint32Array(length),
    weights: new Float32Array(length),
    advantages: new Float32Array(length),
    oldLogprobs: new Float32Array(length),
    behaviourLogprobs: new Float32Array(length),
    importance: new Float32Array(length),
    leftOut: false,
  };
}

/** ln p under the policy at the start of the update. */
function oldOf(step: StepRecord, { rescored }: RowGroup): Float32Array {
  return must(rescored?.get(step.id) ?? step.logprobs, 'log-probabilities of a policy step');
}

interface FilledStep extends StepAdvantage {
  step: StepRecord;
  old: Float32Array;
}

/** `weights` get the shares; `weigh` makes them whole. */
function fillStep(row: PolicyRow, start: number, filled: FilledStep): void {
  const { step, old, advantage, share, factor } = filled;
  row.oldLogprobs.set(old, start);
  const behaviour = step.behaviourLogprobs ?? must(step.logprobs, 'logprobs of a policy step');
  row.behaviourLogprobs.set(behaviour, start);
  for (let t = 0; t < step.tokens.length; t++) {
    row.weights[start + t] = share;
    row.advantages[start + t] = advantage * factor(step.entropies?.[t] ?? 0);
  }
}

/** Importance and aggregation: factors that depend on all policy tokens of the row. */
function weigh(row: PolicyRow, settings: RowSettings): void {
  const sampled = [...row.weights.keys()].filter((t) => row.weights[t] !== 0);
  const pick = (values: Float32Array) => sampled.map((t) => values[t] as number);
  const importance = importanceWeights(
    { old: pick(row.oldLogprobs), behaviour: pick(row.behaviourLogprobs) },
    settings,
  );
  row.leftOut = importance.length > 0 && importance.every((weight) => weight === 0);
  const shares = pick(row.weights);
  const divisor = sequenceDivisor(
    shares.reduce((sum, share) => sum + share, 0),
    settings.aggregate,
  );
  sampled.forEach((t, k) => {
    row.importance[t] = importance[k] as number;
    row.weights[t] = ((shares[k] as number) * (importance[k] as number)) / divisor;
  });
}
