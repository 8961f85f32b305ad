/**
 * The loss of a training graph over flat log-probabilities (rows, predictions). It does not know
 * how they came about: rows forwarded one by one, or packed rows and a gather.
 */
import * as ops from '../graph/functions.ts';
import type { Graph, Value } from '../graph/graph.ts';

/** Clipped policy objective (arpo.md section 6) or plain likelihood (supervised cold start). */
export type Objective = 'policy' | 'likelihood';

/** L = -sum w l / weightSum over log-probabilities (B, T); declares the inputs that it reads. */
export function flatLoss(graph: Graph, logprobs: Value, objective: Objective): Value {
  const tokenWeights = graph.input('tokenWeights', 'float32', ['B', 'T']);
  const weightSum = graph.input('weightSum', 'float32', []);
  const objectives = objective === 'likelihood' ? logprobs : clippedObjective(graph, logprobs); // (B, T)
  const total = ops.reduceSum(ops.mul(objectives, tokenWeights), [0, 1]);
  return ops.neg(ops.div(total, weightSum));
}

/** l = min(r A, clip(r, 1 - epsLow, 1 + epsHigh) A), and for A < 0 max(l, dualClip A). */
function clippedObjective(graph: Graph, logprobs: Value): Value {
  const advantages = graph.input('advantages', 'float32', ['B', 'T']);
  const old = graph.input('old', 'float32', ['B', 'T']);
  const low = graph.input('ratioLow', 'float32', []);
  const high = graph.input('ratioHigh', 'float32', []);
  const dualClip = graph.input('dualClip', 'float32', []);
  const ratio = ops.exp(ops.sub(logprobs, old));
  const free = ops.mul(ratio, advantages);
  const clipped = ops.mul(ops.clip(ratio, low, high), advantages);
  const lower = ops.min(free, clipped);
  const bounded = ops.max(lower, ops.mul(advantages, dualClip));
  const negative = ops.less(advantages, ops.scalar(advantages, 0));
  return ops.where(negative, bounded, lower);
}
