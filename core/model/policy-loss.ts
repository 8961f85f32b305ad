/**
 * The loss of a training graph over flat log-probabilities (B rows, T predictions). It does not
 * know how they came about: rows forwarded one by one, or packed rows and a gather. What is not in
 * force is not in the graph, nor are its inputs; loss-feeds.ts gives the others.
 *
 * The formulas are those of arpo.md section 6; core/arpo/loss.ts has them in plain JavaScript.
 */
import * as ops from '../graph/functions.ts';
import type { Graph, Value } from '../graph/graph.ts';

/** How the ratio of a token, or of its sequence, is kept near 1. */
export type ClipRule = 'ppo' | 'entropy-balanced' | 'gspo' | 'cispo';

/** What of the policy loss is in force: each combination is another graph. */
export interface PolicyObjective {
  clip: ClipRule;
  /** Whether the divergence from a reference policy counts. */
  kl: boolean;
  /** Whether the entropy of the predictions counts. */
  entropy: boolean;
}

/** Policy objective, or plain likelihood (supervised cold start). */
export type Objective = PolicyObjective | 'likelihood';

/** The default: clipped as PPO does, nothing else. */
export const PPO: PolicyObjective = { clip: 'ppo', kl: false, entropy: false };

/** What the graph knows of each prediction, (B, T). */
export interface Predictions {
  /** ln p of the token that came next. */
  logprobs: Value;
  entropies: Value;
}

/** L = -sum w l / weightSum over flat predictions; declares the inputs that it reads. */
export function flatLoss(graph: Graph, predictions: Predictions, objective: Objective): Value {
  const tokenWeights = graph.input('tokenWeights', 'float32', ['B', 'T']);
  const weightSum = graph.input('weightSum', 'float32', []);
  const objectives =
    objective === 'likelihood'
      ? predictions.logprobs
      : policyObjectives(graph, predictions, objective); // (B, T)
  const total = ops.reduceSum(ops.mul(objectives, tokenWeights), [0, 1]);
  return ops.neg(ops.div(total, weightSum));
}

/** l of each prediction (B, T), and what a reference and the entropy add to it. */
function policyObjectives(
  graph: Graph,
  { logprobs, entropies }: Predictions,
  { clip, kl, entropy }: PolicyObjective,
): Value {
  const advantages = graph.input('advantages', 'float32', ['B', 'T']);
  const old = graph.input('old', 'float32', ['B', 'T']);
  const bounds = {
    low: graph.input('ratioLow', 'float32', []),
    high: graph.input('ratioHigh', 'float32', []),
  };
  let objectives = RULES[clip](graph, { logprobs, old, advantages, ...bounds });
  if (kl) objectives = ops.sub(objectives, divergence(graph, logprobs, old));
  if (entropy) {
    const coefficient = graph.input('entropyCoefficient', 'float32', []);
    objectives = ops.add(objectives, ops.mul(entropies, coefficient));
  }
  return objectives;
}

interface ClipInputs {
  /** (B, T), as are `old` and `advantages`. */
  logprobs: Value;
  old: Value;
  advantages: Value;
  /** Bounds of the ratio, scalars. */
  low: Value;
  high: Value;
}

const RULES: Record<ClipRule, (graph: Graph, inputs: ClipInputs) => Value> = {
  ppo: (graph, inputs) => {
    const ratio = ops.exp(ops.sub(inputs.logprobs, inputs.old));
    const lower = lesser(ratio, inputs);
    return signed(inputs.advantages, { positive: lower, negative: dual(graph, lower, inputs) });
  },
  'entropy-balanced': (graph, inputs) => {
    const { logprobs, old, advantages, high } = inputs;
    const ratio = ops.exp(ops.sub(logprobs, old));
    // The clipped value, as PPO has it, but with the gradient of a token that has this ratio.
    const capped = ops.where(ops.less(high, ratio), ops.mul(atOne(logprobs), high), ratio);
    const negative = dual(graph, lesser(ratio, inputs), inputs);
    return signed(advantages, { positive: ops.mul(capped, advantages), negative });
  },
  gspo: (graph, inputs) => {
    const { logprobs, old } = inputs;
    // 1 / (policy tokens of the row) on policy tokens, 0 elsewhere.
    const shares = graph.input('sequenceShares', 'float32', ['B', 'T']);
    const changes = ops.mul(ops.sub(logprobs, old), shares);
    const sequence = ops.exp(ops.reduceSum(changes, [1], true)); // (B, 1)
    return lesser(ops.mul(atOne(logprobs), ops.stopGradient(sequence)), inputs);
  },
  // `old` are log-probabilities of the behaviour here: see lossFeeds.
  cispo: (_graph, { logprobs, old, advantages, low, high }) => {
    const ratio = ops.clip(ops.exp(ops.sub(logprobs, old)), low, high);
    return ops.mul(ops.mul(logprobs, advantages), ops.stopGradient(ratio));
  },
};

/** min(r A, clip(r) A). */
function lesser(ratio: Value, { advantages, low, high }: ClipInputs): Value {
  const free = ops.mul(ratio, advantages);
  return ops.min(free, ops.mul(ops.clip(ratio, low, high), advantages));
}

/** max(l, dualClip A): a token with negative advantage costs no more than that. */
function dual(graph: Graph, lower: Value, { advantages }: ClipInputs): Value {
  return ops.max(lower, ops.mul(advantages, graph.input('dualClip', 'float32', [])));
}

function signed(advantages: Value, cases: { positive: Value; negative: Value }): Value {
  const negative = ops.less(advantages, ops.scalar(advantages, 0));
  return ops.where(negative, cases.negative, cases.positive);
}

/** p / sg(p): 1, with the gradient of ln p. */
const atOne = (logprobs: Value) => ops.exp(ops.sub(logprobs, ops.stopGradient(logprobs)));

/**
 * coefficient r (q / p - ln(q / p) - 1) with p the policy, q the reference, r = p / old: unbiased
 * for KL(p || q) on tokens drawn from `old`. The ratio makes the gradient unbiased as well, which
 * is r (ln p - ln q) grad ln p; without it the estimate would have the gradient of KL(q || p).
 */
function divergence(graph: Graph, logprobs: Value, old: Value): Value {
  const reference = graph.input('reference', 'float32', ['B', 'T']);
  const coefficient = graph.input('klCoefficient', 'float32', []);
  const gap = ops.sub(reference, logprobs);
  const estimate = ops.sub(ops.sub(ops.exp(gap), gap), ops.scalar(gap, 1));
  const ratio = ops.exp(ops.sub(logprobs, old));
  return ops.mul(ops.mul(ratio, estimate), coefficient);
}
