/**
 * Sampling inside the decode graph: temperature, top-k, top-p and greedy a row, with the log-
 * probability and entropy of the full distribution at temperature 1 (arpo.md section 2) and the
 * log- probability under the distribution that was really sampled.
 *
 * A token is drawn by inverting the cumulative sum at a uniform from (0, 1). The draws are inputs,
 * so they depend on the request alone and not on the batch.
 */
import * as ops from '../graph/functions.ts';
import { Graph, type Value } from '../graph/graph.ts';

export interface SamplingInputs {
  uniforms: Value; // (steps, B), in (0, 1)
  inverseTemperature: Value; // (B, 1); 1 where greedy
  greedy: Value; // bool (B, 1)
  topP: Value; // (B, 1); 1 = off
  topK: Value; // int64 (B, 1); V = off
  /** Whether any row has topP < 1 or topK < V; without, nothing is sorted. */
  anyFilter: Value; // bool scalar
}

export interface SampledRow {
  tokens: Value; // int64 (B, 1)
  logprobs: Value; // (B, 1)
  behaviourLogprobs: Value; // (B, 1)
  entropies: Value; // (B, 1)
}

/** Samples one token a row from logits (B, V) at loop iteration `iteration`. */
export function sampleTokens(
  graph: Graph,
  logits: Value,
  iteration: Value,
  inputs: SamplingInputs,
): SampledRow {
  const all = ops.logSoftmax(logits, -1); // (B, V)
  const entropies = ops.neg(ops.reduceSum(ops.mul(ops.exp(all), all), [-1], true));
  const tempered = ops.softmax(ops.mul(logits, inputs.inverseTemperature), -1);
  const kept = filtered(graph, tempered, inputs); // (B, V), not normalised

  const cumulative = ops.cumSum(kept, 1);
  const mass = ops.reduceMax(cumulative, [1], true); // (B, 1)
  const draw = ops.unsqueeze(ops.gather(inputs.uniforms, iteration), [1]); // (B, 1)
  const below = ops.less(cumulative, ops.mul(draw, mass));
  const drawn = ops.reduceSum(ops.cast(below, 'int64'), [1], true); // (B, 1)
  const tokens = ops.where(inputs.greedy, ops.argMax(logits, 1), drawn);

  const chosen = ops.div(ops.gatherElements(kept, tokens), mass);
  return {
    tokens,
    logprobs: ops.gatherElements(all, tokens),
    // Greedy has one possible outcome: probability 1.
    behaviourLogprobs: ops.where(inputs.greedy, ops.scalar(logits, 0), ops.log(chosen)),
    entropies,
  };
}

/** Zeroes what top-k and top-p cut; the sort runs only when some row asks for it. */
function filtered(graph: Graph, probabilities: Value, inputs: SamplingInputs): Value {
  const vocabulary = probabilities.shape[1] as number;
  const cut = new Graph(graph);
  const sorted = ops.topK(probabilities, vocabulary, cut).values; // (B, V), falling
  const massBefore = ops.sub(ops.cumSum(sorted, 1), sorted);
  const ranks = cut.constant([...Array(vocabulary).keys()], 'int64'); // (V)
  const keep = ops.and(ops.less(massBefore, inputs.topP), ops.less(ranks, inputs.topK));
  const floor = ops.reduceMin(ops.where(keep, sorted, ops.scalar(sorted, 2)), [1], true);
  const isKept = ops.lessOrEqual(floor, probabilities);
  cut.output('kept', ops.where(isKept, probabilities, ops.scalar(sorted, 0)));
  const whole = new Graph(graph);
  whole.output('kept', probabilities);
  return ops.choose(graph, inputs.anyFilter, cut, whole)[0] as Value;
}
