/** Logits of whole rows by the forward pass that all graphs share; no product graph has them. */
import { must } from '../../core/assert.ts';
import { Graph } from '../../core/graph/graph.ts';
import { mulDims } from '../../core/graph/tensor-type.ts';
import { asFactor } from '../../core/model/cache-graphs.ts';
import { decoderLogits, decoderStates } from '../../core/model/decoder.ts';
import { adapterInputs } from '../../core/model/lora-graph.ts';
import type { LoraAdapter } from '../../core/model/lora.ts';
import type { PolicyModel } from '../../core/model/policy-directory.ts';
import { RotaryTable, rotaryInputs } from '../../core/model/rotary.ts';
import { createSession, type Feeds } from '../../core/model/session.ts';
import { storedWeights } from '../../core/model/stored-weights.ts';
import { causalMask } from '../../core/model/flat-rows.ts';
import type { ComputeType } from '../../core/model/types.ts';

const CPU = { device: 'cpu', threads: 1 } as const;

/** (T, V), row-major. */
export async function wholeRowLogits(
  { config, weights }: PolicyModel,
  ids: readonly number[],
  adapter?: LoraAdapter,
  dtype: ComputeType = 'f32',
): Promise<Float32Array> {
  const graph = new Graph();
  const weight = storedWeights(graph, weights, dtype);
  const group = config.heads / config.kvHeads;
  const input = graph.input('ids', 'int64', ['B', 'T']);
  const rotary = rotaryInputs(graph, config, ['B', 'T']);
  const mask = graph.input('mask', 'float32', [1, 1, mulDims('T', group), 'T']);
  const { adapt } = adapterInputs(graph, adapter?.modules ?? []);
  const states = decoderStates(
    config,
    { ids: input, rotary },
    {
      weight,
      attend: (_layer, keys, values) => [
        { keys: asFactor(keys, dtype), values: asFactor(values, dtype), mask },
      ],
      adapt,
    },
  );
  graph.output('logits', decoderLogits(config, states, weight));
  const session = await createSession(graph, CPU);
  const width = ids.length;
  const factors: Feeds = {};
  for (const [name, { shape, data }] of adapter?.weights ?? [])
    factors[name] = { dims: shape, data };
  const out = await session.run({
    ids: { dims: [1, width], data: BigInt64Array.from(ids, BigInt) },
    ...new RotaryTable(config).feeds([...ids.keys()], [1, width]),
    mask: { dims: [1, 1, width * group, width], data: causalMask(width, group) },
    ...factors,
  });
  await session.dispose();
  return must(out.logits, 'logits').data as Float32Array;
}
