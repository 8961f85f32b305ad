/**
 * How many tokens one run of the decode graph samples. A run has a fixed cost (a turn of the
 * engine, the graph's inputs and outputs), so a small model with few rows samples many; but no
 * request can join, and no token is seen, before the run ends, so a large model or batch samples
 * few. It depends on nothing that changes from run to run, such as time.
 */
import { LIMITS } from '../limits.ts';

/** @param most the engine's upper bound; the result is this or half, a quarter, .. of it. */
export function chunkLength(parameters: number, rows: number, most: number): number {
  let tokens = most;
  const { chunkTokensMin, chunkWorkMax } = LIMITS;
  while (tokens / 2 >= chunkTokensMin && tokens * rows * parameters > chunkWorkMax) tokens /= 2;
  return Math.floor(tokens);
}
