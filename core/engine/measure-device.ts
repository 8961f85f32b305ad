/**
 * How fast a device decodes and trains a policy and which provider ran which part of each graph,
 * measured in a process of its own (device-bench.ts) with an end: `ramify doctor` and
 * `npm run bench:gpu` print it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { explainFault } from '../model/devices.ts';
import type { SessionOptions } from '../model/session.ts';
import type { ComputeType } from '../model/types.ts';
import { builtModule } from '../paths.ts';
import { childOutput } from './child-output.ts';

/** How many different nodes of a graph each provider ran. */
export interface GraphPlacement {
  graph: 'prefill' | 'decode' | 'training';
  providers: Record<string, number>;
  /** Ops of nodes that ran elsewhere than on the device asked for. */
  elsewhere: string[];
}

export interface DecodeSpeed {
  batch: number;
  tokensPerSecond: number;
}

export interface TrainingSpeed {
  /** Of one run, forward and backward. */
  tokens: number;
  tokensPerSecond: number;
}

export type BenchLine =
  { graphs: GraphPlacement[] } | { decode: DecodeSpeed } | { training: TrainingSpeed };

export interface DeviceFigures {
  graphs: GraphPlacement[];
  decode: DecodeSpeed[];
  /** Training is always f32: null for f16, or when it was not reached. */
  training: TrainingSpeed | null;
  /** Why something is missing, in one line; null when all was measured. */
  fault: string | null;
}

export interface MeasureOptions extends SessionOptions {
  dtype: ComputeType;
  /** A policy directory. */
  policyFolder: string;
  timeoutMs: number;
}

/** Never rejects: what went wrong is in the figures. */
export async function measureDevice(options: MeasureOptions): Promise<DeviceFigures> {
  const { device, dtype, threads, policyFolder, timeoutMs } = options;
  const work = mkdtempSync(join(tmpdir(), 'ramify-measure-'));
  const module = builtModule(import.meta.url, './device-bench.ts');
  const args = [device, dtype, String(threads), policyFolder, work];
  const { lines, errors, ended } = await childOutput(module, args, timeoutMs);
  rmSync(work, { recursive: true, force: true });
  const found = lines as BenchLine[];
  const graphs = found.flatMap((line) => ('graphs' in line ? line.graphs : []));
  const decode = found.flatMap((line) => ('decode' in line ? [line.decode] : []));
  const training = found.flatMap((line) => ('training' in line ? [line.training] : []))[0] ?? null;
  const complete = decode.length > 1 && (training !== null || dtype === 'f16');
  const fault = complete ? null : (ended ?? explainFault(device, errors, errors));
  return { graphs, decode, training, fault };
}
