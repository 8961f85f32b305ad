/**
 * A process that tries one device, in float32 and then in float16, and prints one JSON line after
 * each. A driver that faults or hangs takes only this process with it. Started by find-devices.ts:
 * `node device-probe.js webgpu`.
 */
import { toAppError } from '../errors.ts';
import { tryProduct } from '../model/device-trial.ts';
import type { Device } from '../model/session.ts';
import type { ComputeType } from '../model/types.ts';

/** What is printed: why the product failed, null when it was right. */
export interface ProbeLine {
  dtype: ComputeType;
  fault: string | null;
}

const device = process.argv[2] as Device;

for (const dtype of ['f32', 'f16'] as const) {
  const fault = await tryProduct(device, dtype).catch(
    (thrown: unknown) => toAppError(thrown).message,
  );
  process.stdout.write(`${JSON.stringify({ dtype, fault } satisfies ProbeLine)}\n`);
  if (fault !== null) break;
}
