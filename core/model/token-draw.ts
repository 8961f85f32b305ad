/**
 * Draws one index a row from masses that need not sum to 1, by inverting their cumulative sum at a
 * number from (0, 1). Over a large vocabulary in two steps, first a block and then a token in it:
 * onnxruntime sums up cumulatively one element after the other on one thread, which for 150,000
 * tokens and 8 rows is as much time as several layers of a small model.
 *
 * Whatever is drawn has a mass above 0: both steps compare with sums that they computed themselves.
 */
import * as ops from '../graph/functions.ts';
import type { Value } from '../graph/graph.ts';

const BLOCK = 256;
/** Up to here one cumulative sum is faster than the further nodes. */
const ONE_STEP_MAX = 4096;
/** Above 0, so that what is drawn from a block is never a token without mass. */
const LEAST = 1e-30;

/** From masses (B, V) and draws (B, 1): indices int64 (B, 1) and the mass of each row (B, 1). */
export function drawTokens(masses: Value, draws: Value): { drawn: Value; mass: Value } {
  const vocabulary = masses.shape[1] as number;
  if (vocabulary <= ONE_STEP_MAX) {
    const cumulative = ops.cumSum(masses, 1);
    const mass = ops.reduceMax(cumulative, [1], true);
    return { drawn: countBelow(cumulative, ops.mul(draws, mass)), mass };
  }
  const blocks = Math.ceil(vocabulary / BLOCK);
  const missing = blocks * BLOCK - vocabulary;
  const padded = missing === 0 ? masses : ops.concat([masses, ops.zerosFor(masses, [missing])], 1);
  const sums = ops.reduceSum(ops.reshape(padded, [0, blocks, BLOCK]), [2]); // (B, blocks)
  const cumulative = ops.cumSum(sums, 1);
  const mass = ops.reduceMax(cumulative, [1], true);
  const target = ops.mul(draws, mass);
  const block = countBelow(cumulative, target); // (B, 1)
  const before = ops.sub(ops.gatherElements(cumulative, block), ops.gatherElements(sums, block));

  const { graph } = block;
  const first = ops.mul(block, graph.constant(BLOCK, 'int64')); // (B, 1)
  const ids = ops.add(first, graph.constant([...Array(BLOCK).keys()], 'int64')); // (B, BLOCK)
  const within = ops.cumSum(ops.gatherElements(padded, ids), 1);
  const most = ops.reduceMax(within, [1], true);
  const least = ops.scalar(most, LEAST);
  const rest = ops.min(ops.max(ops.sub(target, before), least), most);
  return { drawn: ops.add(first, countBelow(within, rest)), mass };
}

/**
 * How many elements of a row lie below its bound: int64 (B, 1). Counted in floats, which is fast.
 */
function countBelow(rows: Value, bounds: Value): Value {
  const below = ops.cast(ops.less(rows, bounds), 'float32');
  return ops.cast(ops.reduceSum(below, [1], true), 'int64');
}
