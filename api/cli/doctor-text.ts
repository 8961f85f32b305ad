/** A doctor's report as text for a terminal. Pure. */
import type { GraphPlacement } from '../../core/engine/measure-device.ts';
import type { DeviceFinding } from '../../core/model/devices.ts';
import type { DoctorReport, Measurement } from './doctor.ts';
import { table } from './text.ts';

const GIGABYTE = 1e9;

export function doctorText(report: DoctorReport): string {
  const { versions, machine, settings, devices, chosen, measurements, python, advice } = report;
  const memory = `${gigabytes(machine.freeBytes)} of ${gigabytes(machine.memoryBytes)} GB free`;
  const threads = `threads: ${settings.engineThreads} serving, ${settings.trainerThreads} training`;
  const takes =
    chosen.device === null
      ? `The server would not start: ${chosen.fault}`
      : `RAMIFY_DEVICE=${settings.device} takes ${chosen.device}.`;
  return [
    `ramify ${versions.ramify}, Node ${versions.node}, onnxruntime ${versions.onnxruntime}, ${versions.platform}`,
    `${machine.cores} cores (${machine.cpu}), load ${machine.load.toFixed(1)}, ${memory}`,
    '',
    ...table(['device', 'found'], devices.map(deviceRow)),
    takes,
    '',
    `Tokens a second of ${settings.policyFolder}; ${threads}`,
    ...table(['device', 'decode x1', 'decode x8', 'train', ''], measurements.map(speedRow)),
    '',
    'Which provider ran the nodes of each graph',
    ...table(['device', 'graph', 'nodes'], measurements.flatMap(graphRows)),
    '',
    `Tool python: ${python.fault === null ? `Python ${python.version}` : `no: ${python.fault}`}`,
    '',
    'To get more',
    ...(advice.length > 0 ? advice : ['Nothing stands out.']).map((line) => `- ${line}`),
  ].join('\n');
}

function deviceRow({ device, fault, halfFault, name, software }: DeviceFinding): string[] {
  if (fault !== null) return [device, `no: ${fault}`];
  const kind = software ? ', computed on the cpu: taken only when named' : '';
  const half = halfFault === null ? '' : `; no float16: ${halfFault}`;
  return [device, `${name ?? 'yes'}${kind}${half}`];
}

function speedRow({ device, dtype, decode, training, fault }: Measurement): string[] {
  const rate = (found: { tokensPerSecond: number } | null | undefined) =>
    found ? Math.round(found.tokensPerSecond).toLocaleString('en') : '-';
  return [`${device} ${dtype}`, rate(decode[0]), rate(decode[1]), rate(training), fault ?? ''];
}

function graphRows({ device, dtype, graphs }: Measurement): string[][] {
  return graphs.map(({ graph, providers, elsewhere }: GraphPlacement) => {
    const counts = Object.entries(providers).map(([provider, count]) => `${provider} ${count}`);
    const ops = elsewhere.length > 0 ? ` (not on ${device}: ${elsewhere.join(', ')})` : '';
    return [`${device} ${dtype}`, graph, counts.join(', ') + ops];
  });
}

function gigabytes(bytes: number): string {
  return (bytes / GIGABYTE).toFixed(1);
}
