/** What a record says of the code and the machine that made it. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../core/paths.ts';

interface Package {
  version: string;
  dependencies: Record<string, string>;
}

const packageJson = (): Package =>
  JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as Package;

/** The commit, with a `+` when files differ from it, or `unknown` outside a repository. */
export function codeFacts(): { commit: string; version: string } {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: packageRoot, encoding: 'utf8', timeout: 10_000 }).trim();
  const { version } = packageJson();
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no', '--', 'core', 'bench');
    return {
      commit: git('rev-parse', '--short=12', 'HEAD') + (changed === '' ? '' : '+'),
      version,
    };
  } catch {
    return { commit: 'unknown', version };
  }
}

export function machineFacts() {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    node: process.versions.node,
    onnxruntime: packageJson().dependencies['onnxruntime-node'] ?? 'unknown',
    load: Math.round((loadavg()[0] ?? 0) * 100) / 100,
  };
}

/** Of the weights in a policy directory. */
export function weightsSha256(directory: string): string {
  return createHash('sha256')
    .update(readFileSync(join(directory, 'model.safetensors')))
    .digest('hex');
}
