/**
 * Rows of the packed-training benches: groups over one prompt, forests as branched rollouts make
 * them, and rows that share nothing. Random tokens and advantages; the prompt and the results of
 * tools are context.
 */
import type { ModelConfig, TrainRow } from '../core/model/types.ts';
import type { Prng } from '../core/prng.ts';

/** A stretch of tokens, sampled by the policy or not. */
interface Piece {
  tokens: number[];
  sampled: boolean;
}

/** The standard model of the benches with a window for the longest rows here. */
export const longWindow = (config: ModelConfig): ModelConfig => ({
  ...config,
  contextTokens: 4096,
});

export class RowMaker {
  private readonly prng: Prng;
  private readonly vocabulary: number;

  constructor(prng: Prng, vocabulary: number) {
    this.prng = prng;
    this.vocabulary = vocabulary;
  }

  /** `size` answers of `response` tokens to one prompt. */
  group(size: number, prompt: number, response: number): TrainRow[] {
    const shared = this.piece(prompt, false);
    return this.rows(Array.from({ length: size }, () => [shared, this.piece(response, true)]));
  }

  /**
   * As arpo.md section 3 makes them: half of the group are roots with a call, its result and an
   * answer; each has a second answer branched off at the result. Lengths vary by a half.
   */
  branched(size: number, prompt: number, step: number): TrainRow[] {
    const shared = this.piece(prompt, false);
    return this.rows(
      Array.from({ length: size / 2 }, () => {
        const trunk = [shared, this.piece(this.about(step), true), this.piece(step, false)];
        return [0, 1].map(() => [...trunk, this.piece(this.about(step), true)]);
      }).flat(),
    );
  }

  /** Rows without a common beginning, of equal or of any length up to `length`. */
  unshared(count: number, length: number, ragged: boolean): TrainRow[] {
    return this.rows(
      Array.from({ length: count }, (_, i) => {
        const tokens = ragged ? 2 + this.prng.below(length - 1) : length;
        const first = { tokens: [i], sampled: false };
        return [first, this.piece(tokens - 1, true)];
      }),
    );
  }

  private about(length: number): number {
    return length - (length >> 1) + this.prng.below(length + 1);
  }

  private piece(length: number, sampled: boolean): Piece {
    return { tokens: Array.from({ length }, () => this.prng.below(this.vocabulary)), sampled };
  }

  private rows(paths: Piece[][]): TrainRow[] {
    return paths.map((path) => {
      const tokens = Uint32Array.from(path.flatMap((piece) => piece.tokens));
      return {
        tokens,
        weights: Float32Array.from(
          path.flatMap(({ tokens: all, sampled }) => all.map(() => Number(sampled))),
        ),
        advantages: new Float32Array(tokens.length).fill(this.prng.gaussian()),
        oldLogprobs: new Float32Array(tokens.length).fill(-Math.log(this.vocabulary)),
      };
    });
  }
}
