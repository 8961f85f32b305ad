/**
 * Writes a model as transformers.js loads it: config.json and onnx/model.onnx in float32, with the
 * usual names (input_ids, attention_mask, position_ids, past_key_values.N.key, logits,
 * present.N.key). Made from our own forward pass, so that only the way of running differs: present
 * keys are past and new ones, concatenated, as in every exported decoder.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { must } from '../../core/assert.ts';
import * as ops from '../../core/graph/functions.ts';
import { Graph, type Value } from '../../core/graph/graph.ts';
import { encodeModel } from '../../core/graph/onnx.ts';
import { mulDims } from '../../core/graph/tensor-type.ts';
import { formatModelConfig } from '../../core/model/config.ts';
import { decoderLogits, decoderStates } from '../../core/model/decoder.ts';
import type { PolicyModel } from '../../core/model/policy-directory.ts';
import { RotaryTable } from '../../core/model/rotary.ts';
import type { ModelConfig } from '../../core/model/types.ts';

export function writeOnnxDirectory(folder: string, model: PolicyModel): void {
  mkdirSync(join(folder, 'onnx'), { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(formatModelConfig(model.config)));
  writeFileSync(join(folder, 'onnx', 'model.onnx'), encodeModel(exportedGraph(model)));
}

function exportedGraph({ config, weights }: PolicyModel): Graph {
  const graph = new Graph();
  const stored = new Map<string, Value>();
  for (const [name, { shape, data }] of weights) {
    stored.set(name, graph.initializer(name, shape, data));
  }
  const weight = (name: string) => must(stored.get(name), name);
  const ids = graph.input('input_ids', 'int64', ['B', 'T']);
  const attended = graph.input('attention_mask', 'int64', ['B', 'P+T']);
  const positions = graph.input('position_ids', 'int64', ['B', 'T']);
  const mask = causalMask(attended, positions, config.heads / config.kvHeads);
  const { kvHeads, headDim } = config;
  const states = decoderStates(
    config,
    { ids, rotary: storedRotary(config, graph, positions) },
    {
      weight,
      attend(layer, keys, values) {
        const past = (kind: string) =>
          graph.input(`past_key_values.${layer}.${kind}`, 'float32', ['B', kvHeads, 'P', headDim]);
        const present = {
          keys: ops.concat([past('key'), keys], 2),
          values: ops.concat([past('value'), values], 2),
        };
        graph.output(`present.${layer}.key`, present.keys);
        graph.output(`present.${layer}.value`, present.values);
        return [{ ...present, mask }];
      },
    },
  );
  graph.output('logits', decoderLogits(config, states, weight));
  return graph;
}

/** The tables of the whole window: the caller feeds positions only. */
function storedRotary(config: ModelConfig, graph: Graph, places: Value) {
  const all = Array.from({ length: config.contextTokens }, (_, position) => position);
  const feeds = new RotaryTable(config).feeds(all, [all.length]);
  const stored = (name: 'cosines' | 'sines') => {
    const { dims, data } = must(feeds[name], name);
    return graph.initializer(name, dims, data);
  };
  return { places, cosines: stored('cosines'), sines: stored('sines') };
}

/**
 * (B, 1, T*G, P+T): 0 where the key's position is not after the query's, very negative elsewhere. A
 * key's position is the number of attended tokens before it.
 */
function causalMask(attended: Value, positions: Value, group: number): Value {
  const shown = ops.cast(attended, 'float32');
  const keyPositions = ops.sub(ops.cumSum(shown, 1), ops.scalar(shown, 1)); // (B, P+T)
  // The queries of one key head are rows of one product: every position G times.
  const times = positions.graph.initializer('times', [group], new Float32Array(group));
  const each = ops.add(ops.unsqueeze(ops.cast(positions, 'float32'), [2]), times); // (B, T, G)
  const queries = ops.reshape(each, [0, -1], String(mulDims('T', group))); // (B, T*G)
  const seen = ops.lessOrEqual(ops.unsqueeze(keyPositions, [1, 2]), ops.unsqueeze(queries, [1, 3]));
  const isShown = ops.less(ops.scalar(shown, 0), ops.unsqueeze(shown, [1, 2]));
  return ops.where(ops.and(seen, isShown), ops.scalar(shown, 0), ops.scalar(shown, -1e9));
}
