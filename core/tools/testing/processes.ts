/** Looks at processes of this machine, for tests that must find none left; starts one. Linux. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';

/** Children, their children and so on, down to `depth`; those that ended and wait are left out. */
export function descendants(pid: number, depth = Infinity): number[] {
  const byParent = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    const stat = /^\d+$/.test(name) ? statOf(Number(name)) : null;
    if (stat === null || stat.state === 'Z') continue;
    byParent.set(stat.parent, [...(byParent.get(stat.parent) ?? []), Number(name)]);
  }
  const below = (parent: number, levels: number): number[] =>
    levels === 0
      ? []
      : (byParent.get(parent) ?? []).flatMap((child) => [child, ...below(child, levels - 1)]);
  return below(pid, depth);
}

export function alive(pid: number): boolean {
  const stat = statOf(pid);
  return stat !== null && stat.state !== 'Z';
}

export async function until(condition: () => boolean, timeoutMs = 20_000): Promise<void> {
  const endsAt = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > endsAt) throw new Error(`never came true: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/**
 * What a program of Node, a module, prints in a process that can open 500 files. It has
 * `takeFiles`, which opens files until there can be no more, and `freeFiles`, which closes them.
 */
export async function printedWithFewFiles(source: string): Promise<string> {
  const whole = `import { openSync, closeSync } from 'node:fs';
    const files = [];
    const takeFiles = () => { try { for (;;) files.push(openSync('/dev/null')); } catch {} };
    const freeFiles = () => { for (const file of files.splice(0)) closeSync(file); };
    ${source}`;
  const node = [process.execPath, '--input-type=module', '-e', whole];
  const args = ['-c', 'ulimit -n 500 && exec "$@"', 'sh', ...node];
  return (await promisify(execFile)('/bin/sh', args)).stdout;
}

function statOf(pid: number): { state: string; parent: number } | null {
  try {
    // The name may hold anything, brackets too.
    const [, state, parent] = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\)/s, '')
      .split(' ');
    return { state: state as string, parent: Number(parent) };
  } catch {
    return null;
  }
}
