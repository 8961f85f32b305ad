/**
 * Scoring and training graphs: the forward pass over whole rows, the log-probability of every next
 * token, and for training the loss and its gradients. Weights are inputs, so that an optimiser that
 * changes them in place needs no new session. With an adapter, its A and B are inputs beside the
 * base's weights and the only ones that get gradients.
 *
 * Dimensions: B rows, T predictions a row (tokens - 1), V vocabulary.
 */
import * as ops from '../graph/functions.ts';
import { gradients } from '../graph/gradient.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { mulDims } from '../graph/tensor-type.ts';
import { decoderLogits, decoderStates } from './decoder.ts';
import { adapterInputs } from './lora-graph.ts';
import type { LoraModule } from './lora.ts';
import { parameterShapes } from './parameters.ts';
import { rotaryInputs } from './rotary.ts';
import type { ModelConfig } from './types.ts';

/** Clipped policy objective (arpo.md section 6) or plain likelihood (supervised cold start). */
export type Objective = 'policy' | 'likelihood';

export const gradientName = (parameter: string) => `gradient:${parameter}`;

/** The modules of an adapter; none: the model's own weights are trained. */
type Adapted = readonly LoraModule[];

/**
 * Inputs: weights, ids, targets (B, T), those of `rotaryInputs` (B, T), mask. Outputs: logprobs,
 * entropies (B, T).
 */
export function scoringGraph(config: ModelConfig, adapted: Adapted = []): Graph {
  const graph = new Graph();
  scored(graph, config, adapted);
  return graph;
}

/**
 * As scoring, with inputs weights of tokens, advantages, old (B, T), weightSum and the clip bounds
 * (scalars), and outputs loss and one gradient a trained parameter.
 */
export function trainingGraph(
  config: ModelConfig,
  objective: Objective,
  adapted: Adapted = [],
): Graph {
  const graph = new Graph();
  const { trained, logprobs } = scored(graph, config, adapted);
  const loss = flatLoss(graph, logprobs, objective);
  graph.output('loss', loss);
  const names = [...trained.keys()];
  const grads = gradients(graph, loss, [...trained.values()]);
  names.forEach((name, i) => graph.output(gradientName(name), grads[i] as Value));
  return graph;
}

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

function scored(graph: Graph, config: ModelConfig, adapted: Adapted) {
  const parameters = new Map<string, Value>();
  for (const [name, shape] of parameterShapes(config)) {
    parameters.set(name, graph.input(name, 'float32', shape));
  }
  const weight = (name: string) => parameters.get(name) as Value;
  const adapter = adapterInputs(graph, adapted);
  const ids = graph.input('ids', 'int64', ['B', 'T']);
  const targets = graph.input('targets', 'int64', ['B', 'T']);
  const rotary = rotaryInputs(graph, config, ['B', 'T']);
  const rows = mulDims('T', config.heads / config.kvHeads);
  const mask = graph.input('mask', 'float32', [1, 1, rows, 'T']);
  const states = decoderStates(
    config,
    { ids, rotary },
    {
      weight,
      attend: (_layer, keys, values) => [{ keys, values, mask }],
      adapt: adapter.adapt,
    },
  );
  const logits = decoderLogits(config, states, weight); // (B, T, V)
  const logprobs = ops.tokenLogprob(logits, targets); // (B, T)
  const all = ops.logSoftmax(logits, -1);
  const entropies = ops.neg(ops.reduceSum(ops.mul(ops.exp(all), all), [-1])); // (B, T)
  graph.output('logprobs', logprobs);
  graph.output('entropies', entropies);
  return { trained: adapted.length > 0 ? adapter.parameters : parameters, logprobs };
}
