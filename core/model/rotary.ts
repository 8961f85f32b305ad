/**
 * Rotary position embedding (RoFormer) in the half-split form of Hugging Face. Cosines and sines
 * are computed here and fed to the graphs for the positions that a run needs, because the other
 * ways cost more: tables in the graph take 134 MB a session at a window of 2^17 tokens and heads of
 * 128, and WGSL leaves open how exact the cosine of a large angle is, so a GPU could compute it
 * wrongly. A decode step is as fast either way.
 */
import type { Graph, Value } from '../graph/graph.ts';
import type { Dim } from '../graph/tensor-type.ts';
import { inverseFrequencies, rotaryGain } from './rope-frequencies.ts';
import type { Feeds } from './session.ts';
import type { ModelConfig } from './types.ts';

const ROWS_MIN = 64;

export interface RotaryValues {
  /** The row of the tables for each token. */
  places: Value; // int64 (B, T)
  cosines: Value; // (P, d/2)
  sines: Value; // (P, d/2)
}

/** Declares what `RotaryTable.feeds` feeds. `shape` is that of the places. */
export function rotaryInputs(
  graph: Graph,
  { headDim }: ModelConfig,
  shape: readonly Dim[],
): RotaryValues {
  return {
    places: graph.input('places', 'int64', shape),
    cosines: graph.input('cosines', 'float32', ['P', headDim / 2]),
    sines: graph.input('sines', 'float32', ['P', headDim / 2]),
  };
}

/** Cosines and sines by position, computed as far as positions have been asked for. */
export class RotaryTable {
  private readonly config: ModelConfig;
  private readonly frequencies: Float32Array;
  private readonly gain: number;
  private rows = 0;
  private cosines = new Float32Array(0); // (rows, d/2)
  private sines = new Float32Array(0); // (rows, d/2)

  constructor(config: ModelConfig) {
    this.config = config;
    this.frequencies = inverseFrequencies(config);
    this.gain = rotaryGain(config);
  }

  /**
   * Inputs of `rotaryInputs` for tokens at these positions, in order; `dims` multiply to their
   * number. Equal positions share a row. One past the window can only be padding and gets the last.
   */
  feeds(positions: ArrayLike<number>, dims: readonly number[]): Feeds {
    const last = this.config.contextTokens - 1;
    const rows = new Map<number, number>();
    const places = new BigInt64Array(positions.length);
    for (let i = 0; i < positions.length; i++) {
      const position = Math.min(positions[i] as number, last);
      const row = rows.get(position) ?? rows.size;
      if (row === rows.size) rows.set(position, row);
      places[i] = BigInt(row);
    }
    const half = this.config.headDim / 2;
    // onnxruntime's kernel wants at least as many rows as a batch row has tokens.
    const tableRows = Math.max(rows.size, dims.at(-1) ?? 0);
    const cosines = new Float32Array(tableRows * half);
    const sines = new Float32Array(tableRows * half);
    for (const [position, row] of rows) {
      this.reach(position);
      const [from, to] = [position * half, (position + 1) * half];
      cosines.set(this.cosines.subarray(from, to), row * half);
      sines.set(this.sines.subarray(from, to), row * half);
    }
    const tableDims = [tableRows, half];
    return {
      places: { dims, data: places },
      cosines: { dims: tableDims, data: cosines },
      sines: { dims: tableDims, data: sines },
    };
  }

  /** Doubles the table until it has the position, up to the window. */
  private reach(position: number): void {
    if (position < this.rows) return;
    const { headDim, contextTokens } = this.config;
    const half = headDim / 2;
    let rows = Math.max(this.rows, ROWS_MIN);
    while (rows <= position) rows *= 2;
    rows = Math.min(rows, contextTokens);
    const cosines = new Float32Array(rows * half);
    const sines = new Float32Array(rows * half);
    cosines.set(this.cosines);
    sines.set(this.sines);
    for (let row = this.rows; row < rows; row++) {
      for (let i = 0; i < half; i++) {
        // In float32, as in transformers.
        const angle = Math.fround(row * (this.frequencies[i] as number));
        cosines[row * half + i] = Math.cos(angle) * this.gain;
        sines[row * half + i] = Math.sin(angle) * this.gain;
      }
    }
    this.rows = rows;
    this.cosines = cosines;
    this.sines = sines;
  }
}
