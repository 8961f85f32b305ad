/**
 * `ramify doctor`: what this machine has, which device `auto` takes and why, which provider ran the
 * nodes of each graph, how fast the policy decodes and trains on each device, whether the tool
 * `python` works, and what to do to get more. Every device is measured in a process of its own; all
 * of it ends within half a minute, whatever a driver does, and needs no network.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, freemem, loadavg, totalmem } from 'node:os';
import { join } from 'node:path';
import { findDevices } from '../../core/engine/find-devices.ts';
import { measureDevice, type DeviceFigures } from '../../core/engine/measure-device.ts';
import { toAppError } from '../../core/errors.ts';
import { chooseDevice, DEVICES, type DeviceFinding } from '../../core/model/devices.ts';
import type { Device } from '../../core/model/session.ts';
import type { ComputeType } from '../../core/model/types.ts';
import { packageRoot } from '../../core/paths.ts';
import { offerPython } from '../../core/tools/python-tool.ts';
import { parseConfig, type Config } from '../config.ts';
import { EXIT } from './command.ts';
import type { Command } from './command.ts';
import { adviceFor } from './doctor-advice.ts';
import { doctorText } from './doctor-text.ts';

/** All measurements together. */
const TIME_MS = 26_000;
/** One device; a software GPU may spend it all on compiling. */
const DEVICE_TIME_MS = 11_000;

export interface Measurement extends DeviceFigures {
  device: Device;
  dtype: ComputeType;
}

export interface DoctorReport {
  versions: { ramify: string; node: string; onnxruntime: string; platform: string };
  machine: {
    cores: number;
    cpu: string;
    memoryBytes: number;
    freeBytes: number;
    /** Programs that wanted a core in the last minute: above the cores, speeds are too low. */
    load: number;
  };
  settings: Pick<Config, 'device' | 'dtype' | 'engineThreads' | 'trainerThreads' | 'policyFolder'>;
  devices: DeviceFinding[];
  /** What the settings lead to; `fault` is the line with which the server would refuse to start. */
  chosen: { device: Device | null; passedOver: string[]; fault: string | null };
  measurements: Measurement[];
  /** Of the tool `python`: its version, or why it is not offered. */
  python: { version: string | null; fault: string | null };
  advice: string[];
}

const HELP = `npx ramify doctor [flags]: what this machine has, and how fast the policy runs on it.
  --json               the report as one JSON object
  also the flags of the server: --device, --policy, --dtype, --engine-threads, ...`;

export const doctorCommand: Command = {
  summary: 'devices found, which provider runs what, speed, and how to get more',
  help: HELP,
  run: async ({ words, environment, output }) => {
    const flags = words.filter((word) => word !== '--json');
    const report = await examine(parseConfig(environment, flags));
    await output.text(doctorText(report));
    await output.record(report);
    return EXIT.done;
  },
};

async function examine(config: Config): Promise<DoctorReport> {
  const endsAt = performance.now() + TIME_MS;
  const devices = await findDevices(DEVICES);
  const measurements: Measurement[] = [];
  for (const { device, dtype } of runsFor(devices)) {
    const timeoutMs = Math.floor(Math.min(DEVICE_TIME_MS, endsAt - performance.now()));
    const { engineThreads: threads, policyFolder } = config;
    const figures =
      timeoutMs > 1_000
        ? await measureDevice({ device, dtype, threads, policyFolder, timeoutMs })
        : { graphs: [], decode: [], training: null, fault: 'no time was left for it' };
    measurements.push({ device, dtype, ...figures });
  }
  const { device, dtype, engineThreads, trainerThreads, policyFolder } = config;
  const report: DoctorReport = {
    versions: versions(),
    machine: {
      cores: availableParallelism(),
      cpu: cpus()[0]?.model ?? 'unknown',
      memoryBytes: totalmem(),
      freeBytes: freemem(),
      load: loadavg()[0] ?? 0,
    },
    settings: { device, dtype, engineThreads, trainerThreads, policyFolder },
    devices,
    chosen: choiceOf(config, devices),
    measurements,
    python: await pythonFound(),
    advice: [],
  };
  return { ...report, advice: adviceFor(report) };
}

/** The cpu first: it always answers. Then every GPU, and last what float16 costs on the cpu. */
function runsFor(devices: readonly DeviceFinding[]): { device: Device; dtype: ComputeType }[] {
  const gpus = devices.filter(({ device, fault }) => device !== 'cpu' && fault === null);
  return [
    { device: 'cpu', dtype: 'f32' },
    ...gpus.map(({ device }) => ({ device, dtype: 'f32' as const })),
    ...gpus
      .filter(({ halfFault }) => halfFault === null)
      .map(({ device }) => ({ device, dtype: 'f16' as const })),
    { device: 'cpu', dtype: 'f16' },
  ];
}

function choiceOf({ device, dtype }: Config, devices: readonly DeviceFinding[]) {
  try {
    return { ...chooseDevice(device, dtype, devices), fault: null };
  } catch (thrown) {
    return { device: null, passedOver: [], fault: toAppError(thrown).message };
  }
}

async function pythonFound(): Promise<DoctorReport['python']> {
  const offer = await offerPython();
  return 'tool' in offer
    ? { version: offer.version, fault: null }
    : { version: null, fault: offer.fault };
}

function versions(): DoctorReport['versions'] {
  const versionIn = (...path: string[]) =>
    (JSON.parse(readFileSync(join(packageRoot, ...path), 'utf8')) as { version: string }).version;
  return {
    ramify: versionIn('package.json'),
    node: process.versions.node,
    onnxruntime: versionIn('node_modules', 'onnxruntime-node', 'package.json'),
    platform: `${process.platform} ${process.arch}`,
  };
}
