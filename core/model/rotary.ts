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
  cosines: Value; // (..leading, d)
  sines: Value; // (..leading, d)
}

/** Declares what `RotaryTable.feeds` feeds. */
export function rotaryInputs(
  graph: Graph,
  { headDim }: ModelConfig,
  leading: readonly Dim[],
): RotaryValues {
  const shape = [...leading, headDim];
  return {
    cosines: graph.input('cosines', 'float32', shape),
    sines: graph.input('sines', 'float32', shape),
  };
}

/** Cosines and sines by position, computed as far as positions have been asked for. */
export class RotaryTable {
  private readonly config: ModelConfig;
  private readonly frequencies: Float32Array;
  private readonly gain: number;
  private rows = 0;
  private cosines = new Float32Array(0); // (rows, d)
  private sines = new Float32Array(0); // (rows, d)

  constructor(config: ModelConfig) {
    this.config = config;
    this.frequencies = inverseFrequencies(config);
    this.gain = rotaryGain(config);
  }

  /**
   * Inputs of `rotaryInputs` for tokens at these positions, in order; `leading` multiplies to their
   * number. A position past the window can only be padding and gets the last row.
   */
  feeds(positions: ArrayLike<number>, leading: readonly number[]): Feeds {
    const { headDim: d, contextTokens } = this.config;
    const cosines = new Float32Array(positions.length * d);
    const sines = new Float32Array(positions.length * d);
    for (let i = 0; i < positions.length; i++) {
      const position = Math.min(positions[i] as number, contextTokens - 1);
      this.reach(position);
      const [from, to] = [position * d, (position + 1) * d];
      cosines.set(this.cosines.subarray(from, to), i * d);
      sines.set(this.sines.subarray(from, to), i * d);
    }
    const dims = [...leading, d];
    return { cosines: { dims, data: cosines }, sines: { dims, data: sines } };
  }

  /** Doubles the table until it has the position, up to the window. */
  private reach(position: number): void {
    if (position < this.rows) return;
    const { headDim: d, contextTokens } = this.config;
    let rows = Math.max(this.rows, ROWS_MIN);
    while (rows <= position) rows *= 2;
    rows = Math.min(rows, contextTokens);
    const cosines = new Float32Array(rows * d);
    const sines = new Float32Array(rows * d);
    cosines.set(this.cosines);
    sines.set(this.sines);
    const half = d / 2;
    for (let row = this.rows; row < rows; row++) {
      for (let i = 0; i < d; i++) {
        // Both halves repeat the same angles. In float32, as in transformers.
        const angle = Math.fround(row * (this.frequencies[i % half] as number));
        cosines[row * d + i] = Math.cos(angle) * this.gain;
        sines[row * d + i] = Math.sin(angle) * this.gain;
      }
    }
    this.rows = rows;
    this.cosines = cosines;
    this.sines = sines;
  }
}
