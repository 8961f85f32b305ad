/**
 * Which device computes: what was found of each, and the choice that a setting makes of it. `auto`
 * takes the first of cuda, webgpu and cpu that is a real one: a GPU that is computed in software on
 * the CPU is slower than the CPU itself. Finding devices is core/engine/find-devices.ts; this file
 * only judges.
 */
import { AppError } from '../errors.ts';
import type { Device } from './session.ts';
import type { ComputeType } from './types.ts';

/** In the order in which `auto` tries them. */
export const DEVICES: readonly Device[] = ['cuda', 'webgpu', 'cpu'];

export type DeviceSetting = 'auto' | Device;

/** What a trial of a device showed. */
export interface DeviceFinding {
  device: Device;
  /** Why it cannot compute, in one line; null when it can. */
  fault: string | null;
  /** Why it cannot compute float16 products; null when it can. */
  halfFault: string | null;
  /** What the driver calls it, where it says so. */
  name: string | null;
  /** Computed by a program on the CPU (SwiftShader, llvmpipe). */
  software: boolean;
}

export interface ChosenDevice {
  device: Device;
  /** What is better in the order of `auto` and was not taken, each with its reason in one line. */
  passedOver: string[];
}

/** The command that fetches the CUDA libraries, which the package comes without. */
export const CUDA_COMMAND =
  'node node_modules/onnxruntime-node/script/install.js --onnxruntime-node-install';

/**
 * The device for a setting. `findings` has what was tried: all devices for `auto`, else the named
 * one at least.
 * @throws AppError config_invalid, one line, when a named device cannot do what is asked.
 */
export function chooseDevice(
  setting: DeviceSetting,
  dtype: ComputeType,
  findings: readonly DeviceFinding[],
): ChosenDevice {
  const of = (device: Device) => findings.find((finding) => finding.device === device);
  if (setting !== 'auto') {
    const fault = faultOf(of(setting), dtype);
    if (fault === null) return { device: setting, passedOver: [] };
    throw new AppError('config_invalid', `RAMIFY_DEVICE=${setting}: ${fault}`);
  }
  const passedOver: string[] = [];
  for (const device of DEVICES) {
    const finding = of(device);
    const fault = faultOf(finding, dtype) ?? softwareFault(finding);
    if (fault === null) return { device, passedOver };
    passedOver.push(`${device}: ${fault}`);
  }
  throw new AppError('config_invalid', `RAMIFY_DEVICE=auto: ${passedOver.join('; ')}`);
}

function faultOf(finding: DeviceFinding | undefined, dtype: ComputeType): string | null {
  if (finding === undefined) return 'it was not tried';
  if (finding.fault !== null) return finding.fault;
  if (dtype === 'f32' || finding.halfFault === null) return null;
  return `no float16 (RAMIFY_DTYPE=f16): ${finding.halfFault}`;
}

function softwareFault(finding: DeviceFinding | undefined): string | null {
  if (finding?.software !== true) return null;
  return `${finding.name ?? 'its adapter'} computes on the CPU; taken only when named`;
}

/** The cpu needs no trial: onnxruntime always has it, and it casts what it lacks. */
export const CPU_FINDING: DeviceFinding = {
  device: 'cpu',
  fault: null,
  halfFault: null,
  name: null,
  software: false,
};

/** One line for the message that a trial of `device` failed with, and what drivers printed then. */
export function explainFault(device: Device, message: string, printed: string): string {
  const text = `${printed}\n${message}`;
  if (text.includes('requires f16 but the device does not')) {
    return 'the adapter has no 16-bit floats (shader-f16)';
  }
  const library = /(lib[\w.+-]+\.so[\w.]*): cannot open shared object/.exec(text)?.[1];
  if (library?.startsWith('libonnxruntime_providers') === true) {
    return `its libraries are not there yet; fetch them: ${CUDA_COMMAND}`;
  }
  if (library !== undefined) return `${library} is missing (CUDA 12 with cuDNN 9 is needed)`;
  if (text.includes('Failed to get a WebGPU adapter')) {
    return 'no adapter; on Linux it needs libvulkan1 and the Vulkan driver of the GPU';
  }
  if (text.includes('is unsupported')) return `onnxruntime has no ${device} on this system`;
  const line = message.split('\n').find((part) => part.trim() !== '') ?? 'it ended without a word';
  return line.trim().slice(0, 300);
}
