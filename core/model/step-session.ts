/**
 * The step graph behind the two sessions that the engine knows: `prefill` is one run, `decode` is a
 * run a token, with the same inputs and outputs as the graphs of cache-graphs.ts. What a loop
 * carries is carried here: the last token, the chunk's keys and values (each run returns them grown
 * by its own), and which rows have met a stop token.
 */
import { must } from '../assert.ts';
import { newKeys, newValues, type DecodeOptions } from './cache-graphs.ts';
import { createSession, type Feeds, type ModelSession } from './session.ts';
import type { SessionOptions, TensorLike } from './session.ts';
import { chunkKeys, chunkValues, EMBEDDING, SAMPLED, stepGraph } from './step-graph.ts';
import { TableRows } from './tensor-file.ts';
import type { ModelConfig, ModelWeights } from './types.ts';

type Outputs = Record<string, TensorLike>;

export interface StepSessions {
  prefill: ModelSession;
  decode: ModelSession;
  dispose(): Promise<void>;
}

export async function createStepSessions(
  config: ModelConfig,
  weights: ModelWeights,
  options: SessionOptions & Pick<DecodeOptions, 'adapters' | 'entropyCandidates'>,
): Promise<StepSessions> {
  const table = new TableRows(must(weights.get(EMBEDDING), EMBEDDING));
  const graph = stepGraph(config, weights, options);
  // A step takes a tenth of a second and waits some hundred times: sleeping costs it a tenth.
  const spinning = options.threads > 1;
  const made = await createSession(graph, { ...options, spinning }).catch((error: unknown) => {
    table.close();
    throw error;
  });
  const session = embedding(made, table);
  const dispose = () => session.dispose();
  return {
    prefill: { run: (feeds) => prefill(session, config, feeds), dispose },
    decode: { run: (feeds) => decode(session, config, feeds), dispose },
    dispose,
  };
}

/**
 * The table stays in its file, and a run gets the rows of its own tokens: onnxruntime would keep
 * all pages that it has ever touched.
 */
function embedding(session: ModelSession, table: TableRows): ModelSession {
  return {
    run(feeds, outputs) {
      const { dims, data } = must(feeds.ids, 'ids');
      const rows = table.read(data as BigInt64Array);
      const tableDims = [data.length, rows.length / data.length];
      const places = BigInt64Array.from({ length: data.length }, (_, i) => BigInt(i));
      const ids = { dims, data: places };
      return session.run({ ...feeds, ids, [EMBEDDING]: { dims: tableDims, data: rows } }, outputs);
    },
    async dispose() {
      table.close();
      await session.dispose();
    },
  };
}

async function prefill(session: ModelSession, config: ModelConfig, feeds: Feeds): Promise<Outputs> {
  const rows = batchOf(feeds);
  const cached = cachedNames(config);
  // Sampling costs one token of each row; what it draws is left alone.
  const all = { ...feeds, ...emptyChunk(config, rows), ...neutralSampling(config, rows) };
  return session.run(all, cached);
}

async function decode(session: ModelSession, config: ModelConfig, feeds: Feeds): Promise<Outputs> {
  const { stopTokens, ...constant } = feeds;
  const rows = batchOf(feeds);
  const steps = must(feeds.uniforms, 'uniforms').dims[0] as number;
  const stops = (must(stopTokens, 'stop tokens').data as BigInt64Array) ?? [];
  const stopped = new Array<boolean>(rows).fill(false);
  const sampled: Outputs[] = [];
  let ids = must(feeds.ids, 'ids');
  let chunk = emptyChunk(config, rows);
  for (let step = 0; step < steps && !stopped.every(Boolean); step++) {
    const out = await session.run({
      ...constant,
      ...chunk,
      ids,
      uniforms: stepOf(feeds, 'uniforms', step),
      places: stepOf(feeds, 'places', step),
      localMask: openMask(config, step + 1),
    });
    chunk = grownChunk(config, out);
    ids = must(out.tokens, 'tokens');
    sampled.push(out);
    const perRow = stops.length / rows;
    (ids.data as BigInt64Array).forEach((token, row) => {
      if (stops.subarray(row * perRow, (row + 1) * perRow).includes(token)) stopped[row] = true;
    });
  }
  const last = must(sampled.at(-1), 'a step');
  const cached = cachedNames(config).map((name) => [name, must(last[name], name)]);
  const figures = SAMPLED.filter((name) => name in last);
  const stacked = figures.map((name) => [name, stack(sampled, name)]);
  return Object.fromEntries([...cached, ...stacked]) as Outputs;
}

const batchOf = (feeds: Feeds): number => must(feeds.ids, 'ids').dims[0] as number;

function cachedNames({ layers }: ModelConfig): string[] {
  return Array.from({ length: layers }, (_, layer) => [newKeys(layer), newValues(layer)]).flat();
}

function emptyChunk({ layers, kvHeads, headDim }: ModelConfig, rows: number): Feeds {
  const empty = { dims: [rows, kvHeads, 0, headDim], data: new Float32Array(0) };
  const feeds: Feeds = {};
  for (let layer = 0; layer < layers; layer++) {
    feeds[chunkKeys(layer)] = feeds[chunkValues(layer)] = empty;
  }
  return feeds;
}

function grownChunk({ layers }: ModelConfig, out: Outputs): Feeds {
  const feeds: Feeds = {};
  for (let layer = 0; layer < layers; layer++) {
    feeds[chunkKeys(layer)] = must(out[newKeys(layer)], 'keys');
    feeds[chunkValues(layer)] = must(out[newValues(layer)], 'values');
  }
  return feeds;
}

/** One step of a feed (steps, B, ..): as (B, ..), of uniforms as (1, B). */
function stepOf(feeds: Feeds, name: string, step: number): TensorLike {
  const { dims, data } = must(feeds[name], name);
  const size = data.length / (dims[0] as number);
  const part = (data as Float32Array).subarray(step * size, (step + 1) * size);
  return { dims: name === 'uniforms' ? [1, ...dims.slice(1)] : dims.slice(1), data: part };
}

/** One token sees the whole chunk. */
function openMask({ heads, kvHeads }: ModelConfig, width: number): TensorLike {
  const group = heads / kvHeads;
  return { dims: [1, 1, group, width], data: new Float32Array(group * width) };
}

function neutralSampling({ vocabulary }: ModelConfig, rows: number): Feeds {
  const column = (value: number) => ({
    dims: [rows, 1],
    data: new Float32Array(rows).fill(value),
  });
  const off = { dims: [], data: Uint8Array.of(0) };
  const none = { dims: [0], data: new Float32Array(0) };
  return {
    uniforms: { dims: [1, rows], data: new Float32Array(rows).fill(0.5) },
    inverseTemperature: column(1),
    greedy: { dims: [rows, 1], data: new Uint8Array(rows).fill(1) },
    topP: column(1),
    topK: { dims: [rows, 1], data: new BigInt64Array(rows).fill(BigInt(vocabulary)) },
    minP: column(0),
    anyFilter: off,
    anyShape: off,
    penalties: none,
    shifts: none,
    noLikeliest: { dims: [rows, 0], data: new BigInt64Array(0) },
  };
}

/** Outputs (B, ..) of every step as (n, B, ..). */
function stack(sampled: readonly Outputs[], name: string): TensorLike {
  const parts = sampled.map((out) => must(out[name], name).data);
  const { dims } = must(sampled[0]?.[name], name);
  const data =
    parts[0] instanceof BigInt64Array
      ? BigInt64Array.from(parts.flatMap((part) => [...(part as BigInt64Array)]))
      : Float32Array.from(parts.flatMap((part) => [...(part as Float32Array)]));
  return { dims: [sampled.length, ...dims], data };
}
