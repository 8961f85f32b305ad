/**
 * One policy version, ready to run batches: its prefill and decode sessions and the batch cache. It
 * turns rows (sequence + what to do) into tensors and back; who runs when is the scheduler's
 * matter.
 */
import { must } from '../assert.ts';
import { cacheKeys, cacheValues, newKeys, newValues } from '../model/cache-graphs.ts';
import { causalMask } from '../model/flat-rows.ts';
import { servingFeeds } from '../model/lora-graph.ts';
import type { LoraAdapter } from '../model/lora.ts';
import type { Feeds, TensorLike } from '../model/session.ts';
import { parameterCount } from '../model/parameters.ts';
import { RotaryTable } from '../model/rotary.ts';
import type { ModelConfig } from '../model/types.ts';
import { uniform } from '../prng.ts';
import type { LikeliestTokens, SampledTokens } from '../ports.ts';
import type { SamplingParams } from '../records.ts';
import { BatchKv } from './batch-kv.ts';
import { divideRows, runInThread, type DecodeLane } from './decode-lanes.ts';
import type { KvMemory } from './kv-memory.ts';
import type { PolicySessions } from './policy-sessions.ts';
import type { WriteShape } from './row-options.ts';
import type { SequenceKv } from './sequence-kv.ts';

const MASKED = -1e9;
/** Beyond any rounding of the sum of all probabilities. */
const TOP_P_OFF = 2;
/**
 * Less temperature or top-p leaves the likeliest token only, and must not become 0 or its inverse
 * infinite in float32: then all that is drawn is the first token of the vocabulary.
 */
const LEAST = 1e-6;
const isGreedy = ({ temperature }: SamplingParams): boolean => temperature < LEAST;

export interface PrefillRow {
  kv: SequenceKv;
  /** The next context tokens, in order. */
  tokens: readonly number[];
}

export interface DecodeRow {
  kv: SequenceKv;
  /** The last known token; its keys and values are not cached yet. */
  lastToken: number;
  sampling: SamplingParams;
  stopTokens: readonly number[];
  /** At most so many tokens are taken from this run. */
  maxTokens: number;
  /** Penalties and masks of its logits, which hold for the whole run; null: none. */
  shape: WriteShape | null;
  /** How many of the likeliest tokens are told at every place. */
  likeliest: number;
}

export interface DecodedRow extends SampledTokens {
  /** The last token is a stop token. */
  stopped: boolean;
}

export class BatchModel {
  readonly config: ModelConfig;
  readonly parameters: number;
  private readonly sessions: PolicySessions;
  private readonly adapterFeeds: Feeds;
  private readonly rotary: RotaryTable;
  private readonly prefillKv: BatchKv;
  /** The first has the session of this thread. */
  private readonly lanes: readonly DecodeLane[];
  /** Shaped rows run in batches of their own, which must not push out the others' rows. */
  private readonly shapedKv: BatchKv;

  /** `sessions` are the model's from here on. They take adapters exactly when one is given. */
  constructor(
    config: ModelConfig,
    sessions: PolicySessions,
    adapter: LoraAdapter | null,
    memory: KvMemory,
  ) {
    this.config = config;
    this.parameters = parameterCount(config);
    this.sessions = sessions;
    this.adapterFeeds = adapter === null ? {} : servingFeeds(config, adapter);
    this.rotary = new RotaryTable(config);
    this.prefillKv = new BatchKv(memory, config);
    const threads = [null, ...sessions.lanes];
    this.lanes = threads.map((thread) => ({ kv: new BatchKv(memory, config), thread }));
    this.shapedKv = new BatchKv(memory, config);
  }

  /** How many of these sequences one prefill run may hold. */
  prefillRowsThatFit(sequences: readonly SequenceKv[]): number {
    return this.prefillKv.rowsThatFit(sequences);
  }

  decodeRowsThatFit(sequences: readonly SequenceKv[]): number {
    return must(this.lanes[0], 'lane').kv.rowsThatFit(sequences);
  }

  /** Caches the keys and values of context tokens. Rows may differ in length. */
  async prefill(rows: readonly PrefillRow[]): Promise<void> {
    const width = Math.max(...rows.map((row) => row.tokens.length));
    const ids = new BigInt64Array(rows.length * width);
    const positions = new Float64Array(rows.length * width);
    rows.forEach(({ kv, tokens }, r) => {
      for (let t = 0; t < width; t++) {
        ids[r * width + t] = BigInt(tokens[t] ?? 0);
        positions[r * width + t] = kv.length + t;
      }
    });
    const group = this.config.heads / this.config.kvHeads;
    const dims = [rows.length, width];
    const { mask, cache } = this.cacheFeeds(this.prefillKv, rows);
    const feeds: Feeds = {
      ids: { dims, data: ids },
      ...this.rotary.feeds(positions, dims),
      localMask: { dims: [1, 1, width * group, width], data: causalMask(width, group) },
      ...mask,
      ...cache,
      ...this.adapterFeeds,
    };
    const out = await this.sessions.prefill.run(feeds);
    const layers = this.newLayers(out);
    rows.forEach(({ kv, tokens }, r) => kv.append(layers, r, width, tokens.length));
  }

  /**
   * Samples up to `steps` tokens a row; a row's result ends with its first stop token. Rows that
   * begin were prefilled just now: that batch holds most of their columns.
   */
  async decode(given: readonly DecodeRow[], steps: number, begin: boolean): Promise<DecodedRow[]> {
    if (begin) return this.decodePart({ kv: this.prefillKv, thread: null }, given, steps);
    if (given.some((row) => row.shape !== null)) {
      return this.decodePart({ kv: this.shapedKv, thread: null }, given, steps);
    }
    const parts = divideRows(
      this.lanes,
      given.map((row) => row.kv),
    );
    const results = new Array<DecodedRow>(given.length);
    // The lanes with threads begin first: the session of this thread blocks it until it is done.
    const running = parts.reverse().map(async ({ lane, rows }) => {
      const part = rows.map((i) => must(given[i], 'row'));
      const decoded = await this.decodePart(lane, part, steps);
      decoded.forEach((row, i) => (results[must(rows[i], 'row')] = row));
    });
    // Every lane is done before anyone may use the caches again, whatever failed.
    const failed = (await Promise.allSettled(running)).find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
    return results;
  }

  private async decodePart(
    lane: DecodeLane,
    given: readonly DecodeRow[],
    steps: number,
  ): Promise<DecodedRow[]> {
    const order = lane.kv.arrange(given.map((row) => row.kv));
    const rows = order.map((i) => must(given[i], 'row'));
    const positions = Array.from({ length: steps }, (_, k) => rows.map(({ kv }) => kv.length + k));
    const { mask, cache } = this.cacheFeeds(lane.kv, rows);
    const feeds: Feeds = {
      ids: {
        dims: [rows.length, 1],
        data: BigInt64Array.from(rows, (row) => BigInt(row.lastToken)),
      },
      ...this.rotary.feeds(positions.flat(), [steps, rows.length, 1]),
      ...this.samplingFeeds(rows, steps),
      ...mask,
      ...this.adapterFeeds,
    };
    const out =
      lane.thread === null
        ? await this.sessions.decode.run({ ...feeds, ...cache })
        : await runInThread(lane, feeds, cache);
    const sampled = must(out.tokens, 'tokens').dims[0] as number;
    const layers = this.newLayers(out);
    const results = new Array<DecodedRow>(rows.length);
    rows.forEach((row, r) => {
      const result = takeRow(out, row, r, rows.length, Math.min(sampled, row.maxTokens));
      // Cached are the input token and every sampled one but the last.
      row.kv.append(layers, r, sampled, result.tokens.length);
      results[must(order[r], 'row')] = result;
    });
    return results;
  }

  dispose(): Promise<void> {
    this.prefillKv.dispose();
    for (const { kv } of this.lanes) kv.dispose();
    this.shapedKv.dispose();
    return this.sessions.dispose();
  }

  /** Loads the rows into the batch: its columns, and which of them hold tokens of each row. */
  private cacheFeeds(batch: BatchKv, rows: readonly { kv: SequenceKv }[]) {
    const columns = batch.load(rows.map((row) => row.kv));
    const data = new Float32Array(rows.length * columns).fill(MASKED);
    rows.forEach(({ kv }, r) => data.fill(0, r * columns, r * columns + kv.length));
    const mask: Feeds = { cacheMask: { dims: [rows.length, 1, 1, columns], data } };
    const cache: Feeds = {};
    for (let layer = 0; layer < this.config.layers; layer++) {
      const { keys, values } = batch.view(layer, rows.length);
      cache[cacheKeys(layer)] = keys;
      cache[cacheValues(layer)] = values;
    }
    return { mask, cache };
  }

  private samplingFeeds(rows: readonly DecodeRow[], steps: number): Feeds {
    const { vocabulary } = this.config;
    const column = [rows.length, 1];
    const uniforms = new Float32Array(steps * rows.length);
    rows.forEach(({ sampling, kv }, r) => {
      for (let k = 0; k < steps; k++) {
        uniforms[k * rows.length + r] = uniform(sampling.seed, kv.length + 1 + k);
      }
    });
    const stops = Math.max(1, ...rows.map((row) => row.stopTokens.length));
    const stopTokens = new BigInt64Array(rows.length * stops).fill(-1n);
    rows.forEach((row, r) =>
      row.stopTokens.forEach((token, i) => (stopTokens[r * stops + i] = BigInt(token))),
    );
    const floats = (pick: (params: SamplingParams) => number) => ({
      dims: column,
      data: Float32Array.from(rows, (row) => pick(row.sampling)),
    });
    const cut = ({ topP, topK, minP = 0 }: SamplingParams) =>
      topP < 1 || (topK > 0 && topK < vocabulary) || minP > 0;
    return {
      uniforms: { dims: [steps, rows.length], data: uniforms },
      inverseTemperature: floats((s) => (isGreedy(s) ? 1 : 1 / s.temperature)),
      greedy: { dims: column, data: Uint8Array.from(rows, (row) => +isGreedy(row.sampling)) },
      topP: floats((s) => (s.topP < 1 ? Math.max(s.topP, LEAST) : TOP_P_OFF)),
      topK: {
        dims: column,
        data: BigInt64Array.from(rows, ({ sampling: { topK } }) =>
          BigInt(topK > 0 ? topK : vocabulary),
        ),
      },
      minP: floats((s) => s.minP ?? 0),
      anyFilter: { dims: [], data: Uint8Array.of(+rows.some((row) => cut(row.sampling))) },
      ...shapeFeeds(rows, vocabulary),
      noLikeliest: likeliestFeed(rows, vocabulary),
      stopTokens: { dims: [rows.length, stops], data: stopTokens },
    };
  }

  private newLayers(out: Record<string, TensorLike>) {
    return Array.from({ length: this.config.layers }, (_, layer) => ({
      keys: must(out[newKeys(layer)], 'keys').data as Float32Array,
      values: must(out[newValues(layer)], 'values').data as Float32Array,
    }));
  }
}

/** Dense penalties and shifts of all rows, or nothing when no row has any. */
function shapeFeeds(rows: readonly DecodeRow[], vocabulary: number): Feeds {
  const shaped = rows.some((row) => row.shape !== null);
  const cells = shaped ? rows.length * vocabulary : 0;
  const penalties = new Float32Array(cells).fill(1);
  const shifts = new Float32Array(cells);
  rows.forEach(({ shape }, r) => {
    const view = (all: Float32Array) => all.subarray(r * vocabulary, (r + 1) * vocabulary);
    shape?.(view(penalties), view(shifts));
  });
  return {
    anyShape: { dims: [], data: Uint8Array.of(+shaped) },
    penalties: { dims: [cells], data: penalties },
    shifts: { dims: [cells], data: shifts },
  };
}

/** As many columns as the row that wants the most; a search gives the others theirs too. */
function likeliestFeed(rows: readonly DecodeRow[], vocabulary: number): TensorLike {
  const most = Math.min(vocabulary, Math.max(...rows.map(({ likeliest }) => likeliest)));
  return { dims: [rows.length, most], data: new BigInt64Array(rows.length * most) };
}

/** Row `r` of the (n, B, 1) outputs, cut after its first stop token. */
function takeRow(
  out: Record<string, TensorLike>,
  row: DecodeRow,
  r: number,
  batch: number,
  limit: number,
): DecodedRow {
  const tokens = must(out.tokens, 'tokens').data as BigInt64Array;
  let count = 0;
  let stopped = false;
  while (count < limit && !stopped) {
    stopped = row.stopTokens.includes(Number(tokens[count * batch + r]));
    count++;
  }
  const floats = (name: string) => {
    const data = must(out[name], name).data as Float32Array;
    return Float32Array.from({ length: count }, (_, i) => data[i * batch + r] as number);
  };
  return {
    tokens: Uint32Array.from({ length: count }, (_, i) => Number(tokens[i * batch + r])),
    logprobs: floats('logprobs'),
    behaviourLogprobs: floats('behaviourLogprobs'),
    entropies: floats('entropies'),
    ...(out.candidateEntropies && { candidateEntropies: floats('candidateEntropies') }),
    ...(row.likeliest > 0 && { likeliest: likeliestOf(out, row, r, count) }),
    stopped,
  };
}

/** Row `r` of the outputs (n, B, L), of its first `count` tokens. */
function likeliestOf(
  out: Record<string, TensorLike>,
  row: DecodeRow,
  r: number,
  count: number,
): LikeliestTokens {
  const { dims, data } = must(out.likeliest, 'likeliest');
  const logprobs = must(out.likeliestLogprobs, 'likeliestLogprobs').data as Float32Array;
  const [batch, searched] = dims.slice(1) as [number, number];
  const told = Math.min(row.likeliest, searched);
  const place = (i: number): number => (Math.floor(i / told) * batch + r) * searched + (i % told);
  const length = count * told;
  return {
    count: told,
    tokens: Uint32Array.from({ length }, (_, i) => Number((data as BigInt64Array)[place(i)])),
    logprobs: Float32Array.from({ length }, (_, i) => logprobs[place(i)] as number),
  };
}
