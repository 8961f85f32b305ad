/**
 * Child processes of the benches that measure memory: started with the allocator's settings of the
 * server's own processes, and asked for the highest resident size that they ever had.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { LIMITS } from '../core/limits.ts';

/** A fresh Node process that runs a built script; its errors are ours. */
export function spawnMeasured(script: string, args: readonly string[]) {
  // As api/main.ts sets it.
  const settings = [
    `MALLOC_MMAP_THRESHOLD_=${LIMITS.mallocMapBytes}`,
    `MALLOC_TRIM_THRESHOLD_=${LIMITS.mallocTrimBytes}`,
  ];
  return spawn('env', [...settings, process.execPath, script, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

/** VmHWM of this process, mapped files included; NaN where the system is not Linux. */
export function peakMiB(): number {
  if (process.platform !== 'linux') return NaN;
  const line = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(line?.[1]) / 1024;
}
