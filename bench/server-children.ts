/** The processes of a measured server, as the system tells of them. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { AppError } from '../core/errors.ts';

const run = promisify(execFile);

/** The server's child whose command line or title matches. @throws AppError internal */
export async function childOf(server: number, command: RegExp): Promise<number> {
  const { stdout } = await run('ps', ['-A', '-o', 'pid=,ppid=,args=']);
  const found = stdout
    .split('\n')
    .map((line) => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line))
    .find((match) => Number(match?.[2]) === server && command.test(match?.[3] ?? ''));
  if (found === undefined) {
    throw new AppError('internal', `no child of ${server} like ${command} is listed by ps`);
  }
  return Number(found?.[1]);
}

/** Resident memory of processes, in their order. */
export async function residentMiB(pids: readonly number[]): Promise<number[]> {
  const { stdout } = await run('ps', ['-o', 'pid=,rss=', '-p', pids.join(',')]);
  const sizes = new Map(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/).map(Number) as [number, number]),
  );
  return pids.map((pid) => (sizes.get(pid) ?? NaN) / 1024);
}

/** Hertz of the times in /proc, on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** What processors spent on a process so far; NaN where the system is not Linux. */
export function processorSeconds(pid: number): number {
  if (process.platform !== 'linux') return NaN;
  // The name, in brackets, may hold spaces; user and system time are the 14th and 15th field.
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
