/**
 * Finds out which devices can compute, each by a trial in a process of its own (device-probe.ts),
 * so that a broken driver cannot harm the caller. Which adapter WebGPU took is known on Linux from
 * the Vulkan loader, which names it when asked to be talkative; elsewhere WebGPU never takes a
 * software adapter by itself.
 */
import { existsSync } from 'node:fs';
import { LIMITS } from '../limits.ts';
import { CPU_FINDING, explainFault, type DeviceFinding } from '../model/devices.ts';
import type { Device } from '../model/session.ts';
import { builtModule } from '../paths.ts';
import { childOutput } from './child-output.ts';
import type { ProbeLine } from './device-probe.ts';

/**
 * Files of which Linux shows at least one where there is a GPU (DRM, NVIDIA, WSL, Mali, Adreno).
 */
const GPU_FILES = ['/dev/dri', '/dev/nvidiactl', '/dev/dxg', '/dev/mali0', '/dev/kgsl-3d0'];

export interface FindOptions {
  /** Try software adapters too, which only a machine without a GPU has to offer. */
  thorough?: boolean;
}

/** Tries devices, all at once. Takes about half a second; never rejects. */
export function findDevices(
  devices: readonly Device[],
  { thorough = true }: FindOptions = {},
): Promise<DeviceFinding[]> {
  const noGpu =
    process.platform === 'linux' && !GPU_FILES.some(existsSync) ? 'this machine has no GPU' : null;
  return Promise.all(
    devices.map(async (device) => {
      if (device === 'cpu') return CPU_FINDING;
      if (noGpu !== null && !thorough) return notFound(device, noGpu);
      return tryDevice(device);
    }),
  );
}

function notFound(device: Device, fault: string): DeviceFinding {
  return { device, fault, halfFault: fault, name: null, software: false };
}

async function tryDevice(device: Device): Promise<DeviceFinding> {
  const { lines, errors, ended } = await childOutput(
    builtModule(import.meta.url, './device-probe.ts'),
    [device],
    LIMITS.deviceProbeTimeoutMs,
    { VK_LOADER_DEBUG: 'layer' },
  );
  const probed = lines as ProbeLine[];
  const faultOf = (dtype: ProbeLine['dtype']): string | null => {
    const line = probed.find((found) => found.dtype === dtype);
    if (line === undefined) return ended ?? explainFault(device, errors, errors);
    return line.fault === null ? null : explainFault(device, line.fault, errors);
  };
  const fault = faultOf('f32');
  const adapter = /Using "(.+?)" with driver: "(.+?)"/.exec(errors);
  const name = adapter?.[1] ?? null;
  const software =
    device === 'webgpu' &&
    process.platform === 'linux' &&
    // An adapter that does not even say its name is not trusted to be a GPU.
    (name === null || /swiftshader|llvmpipe|lavapipe|softpipe/i.test(name));
  return { device, fault, halfFault: fault ?? faultOf('f16'), name, software };
}
