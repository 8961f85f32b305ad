/**
 * Scoring and training graphs: the forward pass over rows, the log-probability of the next tokens
 * that are wanted, and for training the loss and its gradients. Weights are inputs, so that an
 * optimiser that changes them in place needs no new session. With an adapter, its A and B are
 * inputs beside the base's weights and the only ones that get gradients.
 *
 * Rows are forwarded flat or packed (flat-rows.ts, packed-rows.ts). Log-probabilities are computed
 * once for each pair of a forwarded token and its successor and then spread over the flat layout,
 * where the loss is defined, so the loss does not know which form it was; the gradient of the
 * spreading adds up what rows that share a token want of it.
 *
 * Dimensions: B rows, T predictions a row (tokens - 1), N forwarded tokens, M predictions, V
 * vocabulary.
 */
import * as ops from '../graph/functions.ts';
import { gradients } from '../graph/gradient.ts';
import { Graph, type Value } from '../graph/graph.ts';
import { mulDims } from '../graph/tensor-type.ts';
import { decoderLogits, decoderStates, type DecoderHooks } from './decoder.ts';
import { adapterInputs } from './lora-graph.ts';
import { packedAttention } from './packed-attention.ts';
import type { LoraModule } from './lora.ts';
import { parameterShapes } from './parameters.ts';
import { flatLoss, type Objective } from './policy-loss.ts';
import { rotaryInputs } from './rotary.ts';
import type { ModelConfig, RowForm } from './types.ts';

export const gradientName = (parameter: string) => `gradient:${parameter}`;

/** What of a model a graph computes. */
export interface GraphKind {
  form: RowForm;
  /** The modules of an adapter; none: the model's own weights are trained. */
  adapted: readonly LoraModule[];
}

const FLAT: GraphKind = { form: 'flat', adapted: [] };

/**
 * Inputs: weights, and those of `flatRows` or `packedRows`. Outputs: logprobs, entropies (B, T), 0
 * where they are not wanted.
 */
export function scoringGraph(config: ModelConfig, kind: GraphKind = FLAT): Graph {
  const graph = new Graph();
  scored(graph, config, kind);
  return graph;
}

/**
 * As scoring, with the inputs of the loss (policy-loss.ts), and outputs loss and one gradient a
 * trained parameter.
 */
export function trainingGraph(
  config: ModelConfig,
  objective: Objective,
  kind: GraphKind = FLAT,
): Graph {
  const graph = new Graph();
  const { trained, predictions } = scored(graph, config, kind);
  const loss = flatLoss(graph, predictions, objective);
  graph.output('loss', loss);
  const names = [...trained.keys()];
  const grads = gradients(graph, loss, [...trained.values()]);
  names.forEach((name, i) => graph.output(gradientName(name), grads[i] as Value));
  return graph;
}

function scored(graph: Graph, config: ModelConfig, { form, adapted }: GraphKind) {
  const parameters = new Map<string, Value>();
  for (const [name, shape] of parameterShapes(config)) {
    parameters.set(name, graph.input(name, 'float32', shape));
  }
  const weight = (name: string) => parameters.get(name) as Value;
  const adapter = adapterInputs(graph, adapted);
  const shape = form === 'flat' ? ['B', 'N'] : [1, 'N'];
  const ids = graph.input('ids', 'int64', shape);
  const rotary = rotaryInputs(graph, config, shape);
  const attend = form === 'flat' ? causalAttention(graph, config) : packedAttention(graph, config);
  const hooks = { weight, attend, adapt: adapter.adapt };
  const states = ops.reshape(
    decoderStates(config, { ids, rotary }, hooks),
    [-1, config.hidden],
    'tokens',
  );

  const predicting = graph.input('predicting', 'int64', ['M']);
  const targets = graph.input('targets', 'int64', ['M']);
  const places = graph.input('flatPlaces', 'int64', ['B', 'T']);
  const logits = decoderLogits(config, ops.gather(states, predicting), weight); // (M, V)
  const all = ops.logSoftmax(logits, -1);
  const entropies = ops.neg(ops.reduceSum(ops.mul(ops.exp(all), all), [-1])); // (M)
  const flat = (values: Value) => spread(values, places);
  const predictions = {
    logprobs: flat(ops.tokenLogprob(logits, targets)),
    entropies: flat(entropies),
  };
  graph.output('logprobs', predictions.logprobs);
  graph.output('entropies', predictions.entropies);
  return { trained: adapted.length > 0 ? adapter.parameters : parameters, predictions };
}

/** Each row attends to what is before in it; the mask is an input. */
function causalAttention(graph: Graph, { heads, kvHeads }: ModelConfig): DecoderHooks['attend'] {
  const mask = graph.input('mask', 'float32', [1, 1, mulDims('N', heads / kvHeads), 'N']);
  return (_layer, keys, values) => [{ keys, values, mask }];
}

/** (M) to (B, T): the value at each place, 0 where the place is negative. */
function spread(values: Value, places: Value): Value {
  const none = places.graph.constant(0, 'int64');
  const found = ops.gather(values, ops.max(places, none));
  return ops.where(ops.less(places, none), ops.scalar(values, 0), found);
}
