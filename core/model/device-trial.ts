/**
 * The smallest honest trial of a device: a product of two matrices, in float32 or float16, whose
 * result is known. core/engine/device-probe.ts runs it in a process of its own.
 */
import * as ops from '../graph/functions.ts';
import { Graph } from '../graph/graph.ts';
import { createSession, type Device } from './session.ts';
import type { ComputeType } from './types.ts';

const SIZE = 16;

/** Null when the device multiplies rightly, else what is wrong. Rejects when it does not run. */
export async function tryProduct(device: Device, dtype: ComputeType): Promise<string | null> {
  const graph = new Graph();
  const x = graph.input('x', 'float32', [SIZE, SIZE]);
  const doubled = ops.add(x, x);
  const product =
    dtype === 'f32'
      ? ops.matmul(x, doubled)
      : ops.cast(ops.matmul(ops.cast(x, 'float16'), ops.cast(doubled, 'float16')), 'float32');
  graph.output('y', product);
  const session = await createSession(graph, { device, threads: 1 });
  const ones = { dims: [SIZE, SIZE], data: new Float32Array(SIZE * SIZE).fill(1) };
  const { y } = await session.run({ x: ones });
  await session.dispose();
  // Ones times twos: exact in both types.
  const wrong = [...(y?.data as Float32Array)].find((value) => value !== 2 * SIZE);
  return wrong === undefined ? null : `it computes wrong products: ${wrong} for ${2 * SIZE}`;
}
