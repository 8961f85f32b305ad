/**
 * What the machine can do, measured in the same run as the engines: floating-point operations a
 * second of a large matrix product, and bytes read a second from memory and from the last-level
 * cache. From these follows the least time that a decoding step can take (a roofline).
 */
import * as ops from '../core/graph/functions.ts';
import { Graph } from '../core/graph/graph.ts';
import { parameterCount } from '../core/model/parameters.ts';
import { createSession, type Feeds } from '../core/model/session.ts';
import type { ModelConfig } from '../core/model/types.ts';
import { median } from './report.ts';

export interface Machine {
  /** Of a product of two square matrices in float32. */
  gemmFlops: number;
  /** Bytes a second, read by a sum over an array far larger than the caches. */
  memoryBytes: number;
  /** The same over 12 MB, read again and again. */
  cacheBytes: number;
}

const SIDE = 1024;
const LARGE = 64 * 1024 * 1024;
const SMALL = 3 * 1024 * 1024;
const REPEATS = 9;

export async function measureMachine(threads: number): Promise<Machine> {
  const product = new Graph();
  const left = product.input('left', 'float32', [SIDE, SIDE]);
  const right = product.initializer('right', [SIDE, SIDE], new Float32Array(SIDE * SIDE).fill(0.5));
  product.output('product', ops.matmul(left, right));
  const data = new Float32Array(SIDE * SIDE).fill(0.5);
  const gemm = await secondsPerRun(product, threads, { left: { dims: [SIDE, SIDE], data } });
  const sum = new Graph();
  sum.output('sum', ops.reduceSum(sum.input('x', 'float32', ['rows', 1024]), [1]));
  const read = (count: number) => {
    const x = { dims: [count / 1024, 1024], data: new Float32Array(count).fill(1) };
    return secondsPerRun(sum, threads, { x });
  };
  return {
    gemmFlops: (2 * SIDE ** 3) / gemm,
    memoryBytes: (4 * LARGE) / (await read(LARGE)),
    cacheBytes: (4 * SMALL) / (await read(SMALL)),
  };
}

async function secondsPerRun(graph: Graph, threads: number, feeds: Feeds): Promise<number> {
  const session = await createSession(graph, { device: 'cpu', threads });
  const times: number[] = [];
  for (let repeat = 0; repeat <= REPEATS; repeat++) {
    const start = performance.now();
    await session.run(feeds);
    if (repeat > 0) times.push((performance.now() - start) / 1000);
  }
  await session.dispose();
  return median(times);
}

/** Work of one step that samples a token in each of `batch` rows over `cache` cached tokens. */
export function stepWork(config: ModelConfig, batch: number, cache: number) {
  const { layers, kvHeads, heads, headDim } = config;
  const parameters = parameterCount(config);
  return {
    weightBytes: 4 * parameters,
    cacheBytes: 4 * 2 * layers * kvHeads * headDim * cache * batch,
    flops: 2 * parameters * batch + 4 * layers * heads * headDim * cache * batch,
  };
}

/** Tokens a second if only arithmetic, or only reading weights and cache from memory, took time. */
export function limits(machine: Machine, config: ModelConfig, batch: number, cache: number) {
  const { weightBytes, cacheBytes, flops } = stepWork(config, batch, cache);
  const bytes = weightBytes + cacheBytes;
  // What fits the last-level cache is read from there, step after step.
  const bytesPerSecond = bytes < 16e6 ? machine.cacheBytes : machine.memoryBytes;
  return {
    arithmetic: (batch * machine.gemmFlops) / flops,
    memory: (batch * bytesPerSecond) / bytes,
  };
}
