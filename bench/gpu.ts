/**
 * npm run bench:gpu: the decode and training speed of the best GPU found, in float32 and float16,
 * beside the cpu's, on the models of the other benches; which provider ran the nodes of each graph.
 * Without a GPU it says so in one line and ends with 0. `-- --device webgpu` measures that device
 * whatever it is, a software one too.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findDevices } from '../core/engine/find-devices.ts';
import { measureDevice } from '../core/engine/measure-device.ts';
import { AppError } from '../core/errors.ts';
import { DEVICES, type DeviceFinding } from '../core/model/devices.ts';
import { savePolicyModel } from '../core/model/policy-directory.ts';
import type { Device } from '../core/model/session.ts';
import { benchModels, type BenchModel } from './models.ts';
import { printTable, recordResults, type Row } from './report.ts';

const TIMEOUT_MS = 900_000;
const threads = availableParallelism();

const { values } = parseArgs({ options: { device: { type: 'string' } } });
const findings = await findDevices(DEVICES);
const gpu = values.device === undefined ? bestGpu(findings) : named(values.device);
if (gpu === undefined) {
  const why = findings.filter(({ device }) => device !== 'cpu').map(reason);
  console.log(`bench:gpu: no GPU was found, nothing is measured (${why.join('; ')})`);
} else {
  console.log(`measuring ${gpu.device}${gpu.name === null ? '' : ` (${gpu.name})`}`);
  const rows: Row[] = [];
  for (const model of benchModels()) rows.push(...(await benchModel(model, gpu)));
  printTable(rows);
  recordResults('gpu', { repeats: 3, threads }, rows);
}

function bestGpu(found: readonly DeviceFinding[]): DeviceFinding | undefined {
  return found.find(
    ({ device, fault, software }) => device !== 'cpu' && fault === null && !software,
  );
}

function named(device: string): DeviceFinding {
  const finding = findings.find((found) => found.device === device);
  if (finding !== undefined && finding.fault === null) return finding;
  const fault = finding?.fault ?? `known are ${DEVICES.join(', ')}`;
  throw new AppError('config_invalid', `--device ${device}: ${fault}`);
}

function reason({ device, fault, name, software }: DeviceFinding): string {
  return `${device}: ${fault ?? (software ? `${name ?? 'its adapter'} computes on the cpu` : 'found')}`;
}

async function benchModel(model: BenchModel, { device, halfFault }: DeviceFinding): Promise<Row[]> {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-bench-'));
  try {
    savePolicyModel(folder, model);
    const rows = [
      await row(model.name, 'cpu', 'f32', folder),
      await row(model.name, device, 'f32', folder),
    ];
    if (halfFault === null) rows.push(await row(model.name, device, 'f16', folder));
    return rows;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function row(
  model: string,
  device: Device,
  dtype: 'f32' | 'f16',
  policyFolder: string,
): Promise<Row> {
  const options = { device, dtype, threads, policyFolder, timeoutMs: TIMEOUT_MS };
  const { decode, training, graphs, fault } = await measureDevice(options);
  const placed = graphs.map(({ graph, providers }) => {
    const counts = Object.entries(providers).map(([provider, count]) => `${provider} ${count}`);
    return `${graph}: ${counts.join(' ')}`;
  });
  return {
    model,
    device: `${device} ${dtype}`,
    'decode x1 tok/s': decode[0]?.tokensPerSecond ?? NaN,
    'decode x8 tok/s': decode[1]?.tokensPerSecond ?? NaN,
    'train tok/s': training?.tokensPerSecond ?? NaN,
    nodes: fault ?? placed.join(', '),
  };
}
