/**
 * From the rewards of a group to the advantage of each of its tokens (arpo.md sections 5 and 6).
 * Trajectories of a group share the steps up to their branch; which advantage a shared token gets,
 * and how often it counts, is the attribution. Steps are the same when their ids are.
 *
 * The entropy-aware advantage of AEPO is on top of that. Its mean and deviation are taken over the
 * group, each sampled token once, so neither the cut into micro-batches nor the number of branches
 * below a token moves them.
 */
import { must } from '../assert.ts';
import type { StepRecord } from '../records.ts';
import { groupAdvantages, treeAdvantages, type Normalise } from './advantage.ts';
import { clamp, mean, sampleDeviation } from './number.ts';

/**
 * `soft`: a shared token counts in every trajectory that shares it, with that one's advantage.
 * `hard`: likewise, with the mean of their advantages. `dedup`: it counts once, shared evenly.
 * `tree`: as soft, with the advantage in the own root's tree added (Tree-GRPO).
 */
export type Attribution = 'soft' | 'hard' | 'tree' | 'dedup';

/** Of a trajectory, what its advantage depends on. */
export interface RewardedPath {
  reward: number;
  /** The root rollout from which it descends. */
  root: number;
  steps: readonly StepRecord[];
}

export interface AdvantageSettings {
  normalise: Normalise;
  attribution: Attribution;
  /** How much the entropy of a token weighs in its advantage; 0: not at all. */
  entropyAdvantage: number;
}

export interface TokenAdvantages {
  /** Of trajectory `index` in a step of it. */
  ofStep(index: number, step: StepRecord): StepAdvantage;
}

export interface StepAdvantage {
  /** Of the step's tokens; all have this one. */
  advantage: number;
  /** How much each of them counts: 1, or its part of 1. */
  share: number;
  /** By what the advantage of a token with this entropy (nats) is multiplied. */
  factor: (entropy: number) => number;
}

/** z is cut off here, so that with a coefficient below 1/3 no advantage changes its sign. */
const Z_MAX = 3;

export function tokenAdvantages(
  paths: readonly RewardedPath[],
  { normalise, attribution, entropyAdvantage }: AdvantageSettings,
): TokenAdvantages {
  const rewards = paths.map(({ reward }) => reward);
  const own =
    attribution === 'tree'
      ? treeAdvantages(
          rewards,
          paths.map(({ root }) => root),
          normalise,
        )
      : groupAdvantages(rewards, normalise);
  const sharers = sharersOf(paths);
  const factor = entropyFactor(paths, entropyAdvantage);
  return {
    ofStep(index, { id }) {
      const shared = must(sharers.get(id), 'the trajectories of each step');
      const advantage =
        attribution === 'hard' ? mean(shared.map((i) => own[i] as number)) : own[index];
      const share = attribution === 'dedup' ? 1 / shared.length : 1;
      return { advantage: must(advantage, 'an advantage of each trajectory'), share, factor };
    },
  };
}

/** By step id, the trajectories that contain the step. */
function sharersOf(paths: readonly RewardedPath[]): Map<string, number[]> {
  const sharers = new Map<string, number[]>();
  paths.forEach(({ steps }, i) => {
    for (const { id } of steps) {
      const known = sharers.get(id);
      if (known === undefined) sharers.set(id, [i]);
      else known.push(i);
    }
  });
  return sharers;
}

/** 1 + coefficient z(h), with z over the policy tokens of the group; 1 where all are alike. */
function entropyFactor(
  paths: readonly RewardedPath[],
  coefficient: number,
): (entropy: number) => number {
  if (coefficient === 0) return () => 1;
  const steps = new Map(paths.flatMap((path) => path.steps.map((step) => [step.id, step])));
  const entropies = [...steps.values()].flatMap((step) =>
    step.kind === 'policy' ? [...must(step.entropies, 'entropies of a policy step')] : [],
  );
  const [centre, deviation] = [mean(entropies), sampleDeviation(entropies)];
  if (deviation === 0) return () => 1;
  return (entropy) => 1 + coefficient * clamp((entropy - centre) / deviation, -Z_MAX, Z_MAX);
}
