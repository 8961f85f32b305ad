/**
 * Sampling inside the decode graph: what SamplingParams offers, a row each, with the log-
 * probability and entropy of the full distribution at temperature 1 (arpo.md section 2) and the
 * log-probability under the distribution that was really sampled. The entropy over the likeliest
 * tokens alone is a further figure of graphs that are made for it, because it takes a search. The
 * likeliest tokens themselves are searched only in runs that ask for them.
 *
 * Order, as in Hugging Face's logits processors: penalties, shifts (bias and masks), temperature,
 * top-k, top-p, min-p. Ties at the border of a cut are kept, so that the kept set does not depend
 * on how a sort orders equals. Rows without options cost nothing: one branch holds all of it.
 *
 * The draws are inputs, so they depend on the request alone and not on the batch. The slow twin is
 * testing/sampling-reference.ts.
 */
import * as ops from '../graph/functions.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { apply } from '../graph/op-table.ts';
import { drawTokens } from './token-draw.ts';

export interface SamplingInputs {
  uniforms: Value; // (steps, B), in (0, 1)
  inverseTemperature: Value; // (B, 1); 1 where greedy
  greedy: Value; // bool (B, 1)
  topP: Value; // (B, 1); 2 = off, beyond any rounding of the sum of all
  topK: Value; // int64 (B, 1); V = off
  minP: Value; // (B, 1); 0 = off
  /** Whether any row has one of these cuts; without, nothing is sorted. */
  anyFilter: Value; // bool scalar
  /** Whether any row has penalties or shifts; without, these two may be empty. */
  anyShape: Value; // bool scalar
  /** Divides a positive logit, multiplies a negative one; 1 = off. */
  penalties: Value; // (B * V)
  /** Added to the penalised logit; 0 = off, MASKED = never sampled. */
  shifts: Value; // (B * V)
  /** Zeros int64 (B, L): so many of each row's likeliest tokens are wanted; mostly L is 0. */
  noLikeliest: Value;
}

export interface SampledRow {
  tokens: Value; // int64 (B, 1)
  logprobs: Value; // (B, 1)
  behaviourLogprobs: Value; // (B, 1)
  entropies: Value; // (B, 1)
  candidateEntropies?: Value; // (B, 1)
  likeliest: Value; // int64 (B, L), the likeliest first
  likeliestLogprobs: Value; // (B, L)
}

/** A shift after which no temperature leaves a token any probability in float32. */
export const MASKED_LOGIT = -1e9;

export function samplingInputs(graph: Graph): SamplingInputs {
  return {
    uniforms: graph.input('uniforms', 'float32', ['steps', 'B']),
    inverseTemperature: graph.input('inverseTemperature', 'float32', ['B', 1]),
    greedy: graph.input('greedy', 'bool', ['B', 1]),
    topP: graph.input('topP', 'float32', ['B', 1]),
    topK: graph.input('topK', 'int64', ['B', 1]),
    minP: graph.input('minP', 'float32', ['B', 1]),
    anyFilter: graph.input('anyFilter', 'bool', []),
    anyShape: graph.input('anyShape', 'bool', []),
    penalties: graph.input('penalties', 'float32', ['shapeCells']),
    shifts: graph.input('shifts', 'float32', ['shapeCells']),
    noLikeliest: graph.input('noLikeliest', 'int64', ['B', 'L']),
  };
}

/**
 * Samples one token a row from logits (B, V) at loop iteration `iteration`. With `candidates` it
 * also measures -sum p ln p over so many of the likeliest tokens, their p not renormalised.
 */
export function sampleTokens(
  graph: Graph,
  logits: Value,
  iteration: Value,
  inputs: SamplingInputs,
  candidates = 0,
): SampledRow {
  const all = ops.logSoftmax(logits, -1); // (B, V)
  const likeliest = Math.min(candidates, logits.shape[1] as number);
  const { kept, best } = distribution(graph, logits, inputs);

  const draws = ops.unsqueeze(ops.gather(inputs.uniforms, iteration), [1]); // (B, 1)
  const { drawn, mass } = drawTokens(kept, draws);
  const tokens = ops.where(inputs.greedy, best, drawn);

  const chosen = ops.div(ops.gatherElements(kept, tokens), mass);
  return {
    tokens,
    logprobs: ops.gatherElements(all, tokens),
    // Greedy has one possible outcome: probability 1.
    behaviourLogprobs: ops.where(inputs.greedy, ops.scalar(logits, 0), ops.log(chosen)),
    entropies: entropyOf(all),
    ...(candidates > 0 && { candidateEntropies: entropyOf(ops.topK(all, likeliest).values) }),
    ...likeliestTokens(graph, all, inputs.noLikeliest),
  };
}

/** The L first of each row of ln p (B, V), by a search that runs only when L is not 0. */
function likeliestTokens(graph: Graph, logprobs: Value, none: Value) {
  const count = ops.dimension(none, 1);
  const found = new Graph(graph);
  const [values, tokens] = apply(
    'topK',
    [logprobs, ops.unsqueeze(count, [0])],
    { size: 'L' },
    found,
  );
  found.output('firstLogprobs', values as Value);
  found.output('firstTokens', tokens as Value);
  const skipped = new Graph(graph);
  skipped.output('firstLogprobs', ops.cast(none, 'float32'));
  skipped.output('firstTokens', none);
  const any = ops.less(none.graph.constant(0, 'int64'), count);
  const [likeliestLogprobs, likeliest] = ops.choose(graph, any, found, skipped);
  return { likeliest: likeliest as Value, likeliestLogprobs: likeliestLogprobs as Value };
}

/** -sum p ln p over the last axis of ln p (B, ..), as (B, 1). */
function entropyOf(logprobs: Value): Value {
  return ops.neg(ops.reduceSum(ops.mul(ops.exp(logprobs), logprobs), [-1], true));
}

/** What is drawn from: kept (B, V), not normalised, and the likeliest token (B, 1). */
function distribution(graph: Graph, logits: Value, inputs: SamplingInputs) {
  const plain = new Graph(graph);
  plain.output('kept', tempered(plain, logits, inputs));
  plain.output('best', apply('argMax', [logits], { axis: 1 }, plain)[0] as Value);

  const changed = new Graph(graph);
  const scores = shaped(changed, logits, inputs);
  changed.output('kept', filtered(changed, tempered(changed, scores, inputs), inputs));
  changed.output('best', ops.argMax(scores, 1));
  const any = ops.or(inputs.anyFilter, inputs.anyShape);
  const [kept, best] = ops.choose(graph, any, changed, plain);
  return { kept: kept as Value, best: best as Value };
}

function tempered(graph: Graph, scores: Value, { inverseTemperature }: SamplingInputs): Value {
  return ops.softmax(apply('mul', [scores, inverseTemperature], {}, graph)[0] as Value, -1);
}

/** Logits (B, V) with penalties and shifts, when some row has any. */
function shaped(graph: Graph, logits: Value, inputs: SamplingInputs): Value {
  const vocabulary = logits.shape[1] as number;
  const shape = new Graph(graph);
  const rows = (flat: Value) =>
    apply('reshape', [flat], { sizes: [-1, vocabulary], inferred: 'B' }, shape)[0] as Value;
  const penalties = rows(inputs.penalties); // (B, V)
  const penalised = ops.where(
    ops.less(logits, ops.scalar(penalties, 0)),
    ops.mul(logits, penalties),
    ops.div(logits, penalties),
  );
  shape.output('scores', ops.add(penalised, rows(inputs.shifts)));
  const bare = new Graph(graph);
  bare.output('scores', logits);
  return ops.choose(graph, inputs.anyShape, shape, bare)[0] as Value;
}

/** Zeroes what top-k, top-p and min-p cut; the sort runs only when some row asks for it. */
function filtered(graph: Graph, probabilities: Value, inputs: SamplingInputs): Value {
  const vocabulary = probabilities.shape[1] as number;
  const cut = new Graph(graph);
  const sorted = ops.topK(probabilities, vocabulary, cut).values; // (B, V), falling
  const zero = ops.scalar(sorted, 0);
  const least = (keep: Value) =>
    ops.reduceMin(ops.where(keep, sorted, ops.scalar(sorted, 2)), [1], true); // (B, 1)

  const ranks = cut.constant([...Array(vocabulary).keys()], 'int64'); // (V)
  const inTop = ops.lessOrEqual(least(ops.less(ranks, inputs.topK)), sorted);
  const topMass = ops.reduceSum(ops.where(inTop, sorted, zero), [1], true);
  const massBefore = ops.sub(ops.cumSum(sorted, 1), sorted);
  const inNucleus = ops.less(massBefore, ops.mul(inputs.topP, topMass));
  const highest = ops.reduceMax(sorted, [1], true);
  const likely = ops.lessOrEqual(ops.mul(inputs.minP, highest), sorted);
  const floor = least(ops.and(ops.and(inTop, inNucleus), likely));

  cut.output('kept', ops.where(ops.lessOrEqual(floor, probabilities), probabilities, zero));
  const whole = new Graph(graph);
  whole.output('kept', probabilities);
  return ops.choose(graph, inputs.anyFilter, cut, whole)[0] as Value;
}
