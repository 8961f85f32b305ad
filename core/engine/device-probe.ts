/**
 * A process that tries one device: multiplies two small matrices on it in float32, then in float16,
 * and prints one JSON line of the result after each. A driver that faults or hangs takes only this
 * process with it. Started by find-devices.ts: `node device-probe.js webgpu`.
 */
import { toAppError } from '../errors.ts';
import * as ops from '../graph/functions.ts';
import { Graph } from '../graph/graph.ts';
import { createSession, type Device } from '../model/session.ts';
import type { ComputeType } from '../model/types.ts';

/** What is printed: why the product failed, null when it was right. */
export interface ProbeLine {
  dtype: ComputeType;
  fault: string | null;
}

const SIZE = 16;
const device = process.argv[2] as Device;

for (const dtype of ['f32', 'f16'] as const) {
  const fault = await tryProduct(dtype).catch((thrown: unknown) => toAppError(thrown).message);
  process.stdout.write(`${JSON.stringify({ dtype, fault } satisfies ProbeLine)}\n`);
  if (fault !== null) break;
}

/** x times 2 x, for x all ones: every element is 2 * SIZE, exact in both types. */
async function tryProduct(dtype: ComputeType): Promise<string | null> {
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
  const wrong = [...(y?.data as Float32Array)].find((value) => value !== 2 * SIZE);
  return wrong === undefined ? null : `it computes wrong products: ${wrong} for ${2 * SIZE}`;
}
