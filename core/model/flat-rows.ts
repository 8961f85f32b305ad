/**
 * Rows of tokens as inputs of a forward pass in the flat form: one row a sequence, padded at its
 * end, where causality hides the padding. Only predictions that someone wants pass through the
 * head: with a large vocabulary their logits are most of the memory. What comes out lies in the
 * flat layout (B, T) in either form; `flatPlaces` says where each prediction belongs there.
 *
 * Dimensions: B rows, T predictions of the longest row (tokens - 1), M wanted predictions.
 */
import type { RotaryTable } from './rotary.ts';
import type { Feeds } from './session.ts';
import type { ModelConfig } from './types.ts';

export const MASKED = -1e9;

/** Whether the prediction of token `t` (from 1 on) of a row is wanted. */
export type Wanted = (row: number, t: number) => boolean;

export interface ForwardRows {
  rows: number;
  /** T. */
  width: number;
  feeds: Feeds;
  /** Tokens that pass through the layers, padding included. */
  tokensForwarded: number;
}

/** How many first tokens of each row must be forwarded: up to the one before its last wanted. */
export function usedTokens(rows: readonly Uint32Array[], wanted: Wanted): number[] {
  return rows.map((row, r) => {
    let last = row.length - 1;
    while (last > 0 && !wanted(r, last)) last--;
    return last;
  });
}

export function flatRows(
  config: ModelConfig,
  rotary: RotaryTable,
  rows: readonly Uint32Array[],
  wanted: Wanted,
): ForwardRows {
  const used = usedTokens(rows, wanted);
  const forwarded = Math.max(1, ...used);
  const ids = new BigInt64Array(rows.length * forwarded);
  rows.forEach((row, r) => {
    for (let t = 0; t < (used[r] as number); t++) ids[r * forwarded + t] = BigInt(row[t] as number);
  });
  const dims = [rows.length, forwarded];
  const group = config.heads / config.kvHeads;
  const positions = ids.length === 0 ? [] : rows.flatMap(() => [...Array(forwarded).keys()]);
  const predictions = new Predictions(rows);
  used.forEach((last, r) => {
    for (let t = 1; t <= last; t++) {
      if (wanted(r, t)) predictions.add(r, t, r * forwarded + t - 1);
    }
  });
  return {
    rows: rows.length,
    width: predictions.width,
    feeds: {
      ids: { dims, data: ids },
      ...rotary.feeds(positions, dims),
      mask: { dims: [1, 1, forwarded * group, forwarded], data: causalMask(forwarded, group) },
      ...predictions.feeds(),
    },
    tokensForwarded: ids.length,
  };
}

/** Collects predictions, each unique pair of a forwarded token and its successor once. */
export class Predictions {
  /** T. */
  readonly width: number;
  private readonly rows: readonly Uint32Array[];
  private readonly places: BigInt64Array; // (B, T)
  private readonly known = new Map<string, number>();
  private readonly predicting: number[] = [];
  private readonly targets: number[] = [];

  constructor(rows: readonly Uint32Array[]) {
    this.rows = rows;
    this.width = Math.max(1, ...rows.map((row) => row.length - 1));
    this.places = new BigInt64Array(rows.length * this.width).fill(-1n);
  }

  /** Token `t` of a row is predicted at forwarded token `from`. */
  add(row: number, t: number, from: number): void {
    const target = this.rows[row]?.[t] as number;
    const key = `${from}:${target}`;
    let place = this.known.get(key);
    if (place === undefined) {
      place = this.predicting.push(from) - 1;
      this.targets.push(target);
      this.known.set(key, place);
    }
    this.places[row * this.width + t - 1] = BigInt(place);
  }

  /** predicting, targets (M) and flatPlaces (B, T), -1 where nothing is wanted. */
  feeds(): Feeds {
    const list = (values: readonly number[]) => {
      // Without any, one that is read nowhere: a tensor must not be empty.
      const data = BigInt64Array.from(values.length > 0 ? values : [0], BigInt);
      return { dims: [data.length], data };
    };
    return {
      predicting: list(this.predicting),
      targets: list(this.targets),
      flatPlaces: { dims: [this.rows.length, this.width], data: this.places },
    };
  }
}

/** (B, T) results as one array a row, aligned with the row's tokens: index 0 is 0. */
export function unpadRows(
  rows: readonly Uint32Array[],
  width: number,
  data: Float32Array,
): Float32Array[] {
  return rows.map((row, r) => {
    const out = new Float32Array(row.length);
    if (row.length > 1) out.set(data.subarray(r * width, r * width + row.length - 1), 1);
    return out;
  });
}

/** (T*G, T): row t*G + g sees columns 0..t. */
export function causalMask(width: number, group: number): Float32Array {
  const mask = new Float32Array(width * group * width);
  for (let row = 0; row < width * group; row++) {
    mask.fill(MASKED, row * width + Math.floor(row / group) + 1, (row + 1) * width);
  }
  return mask;
}
