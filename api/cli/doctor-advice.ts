/** What to do to get more out of a machine, concluded from a doctor's report. Pure. */
import { CUDA_COMMAND } from '../../core/model/devices.ts';
import type { DoctorReport, Measurement } from './doctor.ts';

/** Ratios closer to 1 than this are noise of a short measurement. */
const CLEAR = 1.15;

export function adviceFor(report: DoctorReport): string[] {
  return [
    ...busyAdvice(report),
    ...gpuAdvice(report),
    ...speedAdvice(report),
    ...halfAdvice(report),
    ...threadAdvice(report),
  ];
}

function busyAdvice({ machine: { cores, load } }: DoctorReport): string[] {
  if (load <= cores) return [];
  return [`The machine is busy (load ${load.toFixed(1)} on ${cores} cores): speeds are too low.`];
}

function gpuAdvice({ devices }: DoctorReport): string[] {
  const of = (device: string) => devices.find((finding) => finding.device === device);
  const advice: string[] = [];
  if (of('cuda')?.fault?.includes(CUDA_COMMAND) === true) {
    advice.push(`NVIDIA GPU: ${CUDA_COMMAND}; then CUDA 12 and cuDNN 9 must be installed.`);
  }
  if (of('webgpu')?.fault !== null) {
    advice.push('Any other GPU: install its driver, on Linux with Vulkan (libvulkan1).');
  }
  return advice;
}

/** Decoded tokens a second at the largest batch that was measured; null when there is none. */
function decodeRate({ decode }: Measurement): number | null {
  return decode.at(-1)?.tokensPerSecond ?? null;
}

function speedAdvice({ measurements, chosen }: DoctorReport): string[] {
  const rated = measurements.flatMap((measurement) => {
    const rate = decodeRate(measurement);
    return rate === null || measurement.dtype !== 'f32' ? [] : [{ measurement, rate }];
  });
  const taken = rated.find(({ measurement }) => measurement.device === chosen.device);
  const [best] = rated.sort((a, b) => b.rate - a.rate);
  if (taken === undefined || best === undefined || best.rate < taken.rate * CLEAR) return [];
  const { device } = best.measurement;
  const factor = (best.rate / taken.rate).toFixed(1);
  const why = device === 'cpu' ? ': so small a policy does not fill a GPU' : '';
  return [
    `This policy decodes ${factor} times faster on ${device}${why}. Set RAMIFY_DEVICE=${device}.`,
  ];
}

function halfAdvice({ measurements, settings }: DoctorReport): string[] {
  const rateOf = (dtype: string) => {
    const found = measurements.find((m) => m.device === 'cpu' && m.dtype === dtype);
    return found === undefined ? null : decodeRate(found);
  };
  const [full, half] = [rateOf('f32'), rateOf('f16')];
  if (full === null || half === null || half * CLEAR > full) return [];
  const factor = (full / half).toFixed(1);
  const set = settings.dtype === 'f16' ? ' Set RAMIFY_DTYPE=f32.' : '';
  return [`float16 on the cpu is ${factor} times slower, because it is cast: for GPUs only.${set}`];
}

function threadAdvice({ machine: { cores }, settings }: DoctorReport): string[] {
  const { engineThreads, trainerThreads } = settings;
  const sum = `${engineThreads} serving and ${trainerThreads} training`;
  if (engineThreads + trainerThreads > cores) {
    return [`${sum} threads are more than ${cores} cores: streams stutter while a run trains.`];
  }
  if (engineThreads < cores) {
    return [
      `Threads: ${sum}. Where nothing trains, RAMIFY_ENGINE_THREADS=${cores} may serve faster.`,
    ];
  }
  return [];
}
