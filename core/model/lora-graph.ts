/**
 * The part of an adapter in a graph: A and B of its modules as inputs, and what they add to a
 * projection. Inputs and not initialisers, because many adapters run on one base's session, each
 * with its own, and because an optimiser changes them in place.
 */
import * as ops from '../graph/functions.ts';
import type { Graph, Value } from '../graph/graph.ts';
import type { DecoderHooks } from './decoder.ts';
import { loraA, loraB, projections, type LoraAdapter, type LoraModule } from './lora.ts';
import type { Feeds } from './session.ts';
import type { ModelConfig } from './types.ts';

/** What the results of a module's two products are multiplied by. */
type Scales = readonly [number, number];

interface Factors {
  a: Value; // (rank, in)
  b: Value; // (out, rank)
  scales: Scales;
}

/**
 * onnxruntime multiplies a single row by a matrix that is no initialiser in a way of its own, which
 * rounds otherwise than rows in company do: a request's numbers would depend on who else is there.
 * A product whose result is scaled is exempt, and costs nothing more, because the scale is merged
 * into it. A power of two, taken back in B, changes no bit.
 */
const SERVING_SCALES: Scales = [2, 2];

export interface AdapterInputs {
  adapt: NonNullable<DecoderHooks['adapt']>;
  /** A and B by their names. */
  parameters: Map<string, Value>;
}

/** Declares A and B of one adapter with its ranks and scales, for training and scoring. */
export function adapterInputs(graph: Graph, modules: readonly LoraModule[]): AdapterInputs {
  return declare(
    graph,
    modules.map((module) => ({ ...module, scales: [module.scale, 1] })),
  );
}

/**
 * Declares A and B of every projection, of any rank: an adapter that leaves a projection alone
 * feeds it zeros, so adapters with different targets run on one session. The scale is in B, see
 * `servingFeeds`.
 */
export function anyAdapterInputs(graph: Graph, config: ModelConfig): AdapterInputs {
  const modules = projections(config);
  return declare(
    graph,
    modules.map((module) => ({ ...module, rank: `rank.${module.name}`, scales: SERVING_SCALES })),
  );
}

/**
 * What `anyAdapterInputs` reads for one adapter. A is the adapter's own array, B a scaled copy: to
 * be made again when the adapter has changed.
 */
export function servingFeeds(config: ModelConfig, { modules, weights }: LoraAdapter): Feeds {
  const feeds: Feeds = {};
  const [first, second] = SERVING_SCALES;
  const byName = new Map(modules.map((module) => [module.name, module]));
  for (const { name, inputs, outputs } of projections(config)) {
    const { rank, scale } = byName.get(name) ?? { rank: 1, scale: 0 };
    const a = weights.get(loraA(name))?.data ?? new Float32Array(inputs);
    const b = weights.get(loraB(name))?.data ?? new Float32Array(outputs);
    feeds[loraA(name)] = { dims: [rank, inputs], data: a };
    const ownScale = scale / (first * second);
    feeds[loraB(name)] = { dims: [outputs, rank], data: b.map((value) => ownScale * value) };
  }
  return feeds;
}

function declare(
  graph: Graph,
  modules: readonly (Pick<LoraModule, 'name' | 'inputs' | 'outputs'> & {
    rank: number | string;
    scales: Scales;
  })[],
): AdapterInputs {
  const factors = new Map<string, Factors>();
  const parameters = new Map<string, Value>();
  for (const { name, inputs, outputs, rank, scales } of modules) {
    const a = graph.input(loraA(name), 'float32', [rank, inputs]);
    const b = graph.input(loraB(name), 'float32', [outputs, rank]);
    factors.set(name, { a, b, scales });
    parameters.set(loraA(name), a).set(loraB(name), b);
  }
  return {
    parameters,
    adapt(input, module) {
      const found = factors.get(module);
      if (found === undefined) return null;
      const low = scaled(ops.linear(input, found.a), found.scales[0]); // (B, T, rank)
      return scaled(ops.linear(low, found.b), found.scales[1]);
    },
  };
}

const scaled = (x: Value, scale: number): Value =>
  scale === 1 ? x : ops.mul(x, ops.scalar(x, scale));
