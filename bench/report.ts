/**
 * What every bench shares: options, medians, a text table, and one JSON line a run appended to
 * bench/results/, so that figures of different days and machines can be compared. Knows no engine.
 */
import { appendFileSync, mkdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../core/clock.ts';
import { AppError } from '../core/errors.ts';
import { packageRoot } from '../core/paths.ts';

export interface BenchOptions {
  /** Timed repeats of each case; the median counts. */
  repeats: number;
  /** Intra-op threads of onnxruntime. */
  threads: number;
}

/** `--repeats N` and `--threads N` of the command line. Throws config_invalid. */
export function benchOptions(repeats: number): BenchOptions {
  const { values } = parseArgs({
    // `large` is bench:engine's own.
    options: {
      repeats: { type: 'string' },
      threads: { type: 'string' },
      large: { type: 'boolean' },
    },
  });
  const count = (name: string, given: string | undefined, fallback: number) => {
    const value = given === undefined ? fallback : Number(given);
    if (Number.isInteger(value) && value >= 1 && value <= 1000) return value;
    throw new AppError('config_invalid', `--${name} must be a whole number from 1, not ${given}`);
  };
  return {
    repeats: count('repeats', values.repeats, repeats),
    threads: count('threads', values.threads, availableParallelism()),
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** The value below which `share` of all lie; NaN of none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}

/** Seconds that an asynchronous piece of work takes. */
export async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** Seconds by the clock, and those that processors spent on this process meanwhile. */
export interface Spent {
  seconds: number;
  cpuSeconds: number;
}

/** Where other programs take turns on the cores, processor time is the steadier measure. */
export async function spentOn(work: () => Promise<unknown>): Promise<Spent> {
  const before = process.cpuUsage();
  const seconds = await secondsOf(work);
  const { user, system } = process.cpuUsage(before);
  return { seconds, cpuSeconds: (user + system) / 1e6 };
}

export type Row = Readonly<Record<string, string | number>>;

/** Prints rows under their keys; numbers are rounded and stand on the right. */
export function printTable(rows: readonly Row[]): void {
  const keys = Object.keys(rows[0] ?? {});
  const shown = (value: string | number | undefined) =>
    typeof value === 'number'
      ? value.toFixed(value < 100 && value % 1 !== 0 ? 2 : 0)
      : (value ?? '');
  const widths = keys.map((key) =>
    Math.max(key.length, ...rows.map((row) => shown(row[key]).length)),
  );
  const line = (cells: readonly string[], right: (i: number) => boolean) =>
    cells.map((cell, i) => (right(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)));
  const isNumber = (i: number) => typeof rows[0]?.[keys[i]!] === 'number';
  console.log(line(keys, isNumber).join('  '));
  for (const row of rows) {
    const cells = keys.map((key) => shown(row[key]));
    console.log(line(cells, isNumber).join('  '));
  }
}

/** Appends the figures with date, machine and versions to bench/results/NAME.jsonl. */
export function recordResults(name: string, options: BenchOptions, rows: readonly Row[]): void {
  const folder = join(packageRoot, 'bench', 'results');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.jsonl`);
  const { dependencies, version } = JSON.parse(
    readFileSync(join(packageRoot, 'package.json'), 'utf8'),
  ) as { version: string; dependencies: Record<string, string> };
  const record = {
    date: new Date(systemClock.now()).toISOString(),
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    // Others at work on the machine make all figures worse: the reader should know.
    loadAverage: loadavg()[0],
    ...options,
    versions: {
      ramify: version,
      node: process.versions.node,
      onnxruntime: dependencies['onnxruntime-node'],
    },
    rows,
  };
  appendFileSync(file, `${JSON.stringify(record)}\n`);
  console.log(`\nappended to ${file}`);
}
