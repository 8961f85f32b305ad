/** Rotary position embedding (RoFormer) in the half-split form of Hugging Face. */
import * as ops from '../graph/functions.ts';
import type { Graph, Value } from '../graph/graph.ts';
import { inverseFrequencies, rotaryGain } from './rope-frequencies.ts';
import type { ModelConfig } from './types.ts';

/**
 * Cosines and sines (B | 1, T, 1, d) at int64 positions (B | 1, T), looked up in tables that are
 * stored in the graph for every position of the context window.
 */
export function rotaryAt(config: ModelConfig, root: Graph, positions: Value) {
  const { cosines, sines } = rotaryTables(config);
  const shape = [config.contextTokens, config.headDim];
  const table = (name: string, data: Float32Array) =>
    ops.unsqueeze(ops.gather(root.initializer(name, shape, data), positions), [2]);
  return { cosines: table('rotary.cos', cosines), sines: table('rotary.sin', sines) };
}

/** Tables (contextTokens, d), row-major; both halves of a row repeat the same angles. */
export function rotaryTables(config: ModelConfig) {
  const { contextTokens, headDim } = config;
  const frequencies = inverseFrequencies(config);
  const gain = rotaryGain(config);
  const cosines = new Float32Array(contextTokens * headDim);
  const sines = new Float32Array(contextTokens * headDim);
  const half = headDim / 2;
  for (let position = 0; position < contextTokens; position++) {
    for (let i = 0; i < headDim; i++) {
      const angle = Math.fround(position * (frequencies[i % half] as number));
      cosines[position * headDim + i] = Math.cos(angle) * gain;
      sines[position * headDim + i] = Math.sin(angle) * gain;
    }
  }
  return { cosines, sines };
}
