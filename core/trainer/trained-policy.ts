/**
 * What a run trains, from its base policy and its settings: all weights of a model, a new adapter
 * over it, or the adapter that the base is. Gives the sampler its model, the optimiser its session,
 * and the candidate its files; the rest of the trainer does not know which of the three it is.
 */
import type { ArpoSettings } from '../arpo/settings.ts';
import { loadAdapter, saveAdapter, type AdapterPolicy } from '../model/lora-directory.ts';
import { initialAdapter, type LoraConfig } from '../model/lora.ts';
import { loadPolicyModel, savePolicyModel, type PolicyModel } from '../model/policy-directory.ts';
import type { SessionOptions } from '../model/session.ts';
import { heldWeights } from '../model/stored-weights.ts';
import { createTrainingSession } from '../model/training-session.ts';
import type { TrainingSession, Weights } from '../model/types.ts';
import { mix, Prng } from '../prng.ts';
import { SEEDS } from './run-seeds.ts';
import type { TrainingJob } from './types.ts';
import { copyOf } from './weight-lag.ts';

export interface TrainedPolicy {
  /** For the sampler. */
  model: PolicyModel | AdapterPolicy;
  session: TrainingSession;
  /** The arrays that the sampler reads: those that the session trains, or copies of them. */
  sampledWeights: Weights;
  /** Scores with the weights as they are now, whatever becomes of them; for `klCoefficient`. */
  reference?: TrainingSession;
  /** Writes what was trained into a directory, which the candidate becomes. */
  writeWeights: (directory: string) => Promise<void>;
}

/** Throws policy_invalid when the base cannot be read. */
export function openTrainedPolicy(
  job: Pick<TrainingJob, 'baseDirectory' | 'baseKind' | 'candidateDirectory' | 'seed'>,
  settings: ArpoSettings,
  runtime: SessionOptions,
): TrainedPolicy {
  if (job.baseKind === 'lora') {
    const { baseDirectory, ...policy } = loadAdapter(job.baseDirectory);
    const weights = policy.baseWeights();
    const own = { ...policy, baseWeights: () => weights };
    return adapterRun(own, baseDirectory, { job, settings, runtime });
  }
  const { config, weights } = loadPolicyModel(job.baseDirectory);
  if (settings.training === 'lora' && settings.loraRank !== undefined) {
    const prng = new Prng(mix(job.seed, SEEDS.adapter));
    const adapter = initialAdapter(config, adapterConfig(settings), prng);
    const policy = { config, adapter, baseKey: job.baseDirectory, baseWeights: () => weights };
    return adapterRun(policy, job.baseDirectory, { job, settings, runtime });
  }
  const sampledWeights = forSampler(weights, settings);
  return {
    model: { config, weights: sampledWeights },
    session: createTrainingSession(config, weights, runtime),
    sampledWeights,
    ...(settings.klCoefficient > 0 && {
      reference: createTrainingSession(config, copyOf(weights), runtime),
    }),
    writeWeights: async (directory) => savePolicyModel(directory, { config, weights }),
  };
}

function adapterRun(
  policy: AdapterPolicy,
  baseDirectory: string,
  options: {
    job: Pick<TrainingJob, 'candidateDirectory'>;
    settings: ArpoSettings;
    runtime: SessionOptions;
  },
): TrainedPolicy {
  const { config, adapter } = policy;
  const { job, settings, runtime } = options;
  const sampledWeights = forSampler(adapter.weights, settings);
  const base = heldWeights(policy.baseWeights());
  const over = (weights: Weights) => ({ ...runtime, adapter: { ...adapter, weights } });
  return {
    model: { ...policy, adapter: { ...adapter, weights: sampledWeights } },
    sampledWeights,
    session: createTrainingSession(config, base, over(adapter.weights)),
    ...(settings.klCoefficient > 0 && {
      reference: createTrainingSession(config, base, over(copyOf(adapter.weights))),
    }),
    writeWeights: async (directory) =>
      saveAdapter(directory, adapter, { baseDirectory, finalDirectory: job.candidateDirectory }),
  };
}

/** With a lag the sampler stays behind what is trained, in arrays of its own. */
function forSampler(trained: Weights, { rolloutLag }: ArpoSettings): Weights {
  return rolloutLag === 0 ? trained : copyOf(trained);
}

function adapterConfig(settings: Extract<ArpoSettings, { loraRank: number }>): LoraConfig {
  return {
    rank: settings.loraRank,
    alpha: settings.loraAlpha,
    rsLora: settings.rsLora,
    targets: settings.loraTargets,
    excluded: [],
    layers: null,
    rankPattern: {},
    alphaPattern: {},
  };
}
