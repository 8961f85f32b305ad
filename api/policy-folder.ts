/**
 * The policy directories on disk at start: the first policy becomes version 1, what no version of
 * the registry knows is removed (a run died between writing and registering, or the server while it
 * deleted one), and the active directory is compared with the hash of its registration. A first
 * policy that lies elsewhere by now, as after a move of the package, is known by its hash.
 */
import { existsSync } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { AppError } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';
import { isAdapterDirectory } from '../core/model/lora-directory.ts';
import type { PolicyRecord } from '../core/records.ts';
import { directorySha256 } from '../core/trainer/candidate.ts';
import type { PolicyStore } from '../db/policy-store.ts';

export interface PolicyFolderOptions {
  store: PolicyStore;
  /** Where candidates live: <data>/policies. */
  folder: string;
  /** RAMIFY_POLICY. */
  firstPolicy: string;
  /** Throws policy_invalid when a directory cannot serve. */
  check: (directory: string) => void;
  clock: Clock;
  logger: Logger;
}

/** Returns the active policy. @throws AppError policy_invalid */
export async function preparePolicies(options: PolicyFolderOptions): Promise<PolicyRecord> {
  const { store } = options;
  await removeUnknown(options);
  await findMoved(options);
  const active = store.active();
  if (active === null) return registerFirst(options);
  const sha256 = await hashOf(active.path);
  if (sha256 === active.sha256) return active;
  const what = `the files of policy ${active.version} in ${active.path}`;
  if (dirname(active.path) === resolve(options.folder)) {
    // We wrote these files whole and never change them: someone or something else did.
    throw new AppError('policy_invalid', `${what} are not those that were registered`);
  }
  options.logger.warn({ version: active.version, sha256 }, `${what} have changed since`);
  return active;
}

async function registerFirst(options: PolicyFolderOptions): Promise<PolicyRecord> {
  const { store, clock, firstPolicy, check } = options;
  const sha256 = await hashOf(firstPolicy);
  // Version 1 is for ever: a wrong directory must not become it, or the right one never could.
  check(firstPolicy);
  return store.register({
    parentVersion: null,
    kind: isAdapterDirectory(firstPolicy) ? 'lora' : 'full',
    path: firstPolicy,
    sha256,
    sourceRunId: null,
    status: 'active',
    evaluation: null,
    createdAt: clock.now(),
  });
}

async function findMoved({
  store,
  folder,
  firstPolicy,
  logger,
}: PolicyFolderOptions): Promise<void> {
  const outside = store.withFiles().filter(({ path }) => dirname(path) !== resolve(folder));
  const missing = outside.filter(({ path }) => !existsSync(path));
  if (missing.length === 0 || !existsSync(firstPolicy)) return;
  const sha256 = await hashOf(firstPolicy);
  for (const policy of missing) {
    if (policy.sha256 !== sha256) continue;
    logger.warn({ version: policy.version, from: policy.path, to: firstPolicy }, 'a policy moved');
    store.setPath(policy.version, firstPolicy);
  }
}

/** @throws AppError policy_invalid when there is no such directory. */
export async function requireDirectory(directory: string): Promise<void> {
  const found = await stat(directory).catch(() => null);
  if (found?.isDirectory() === true) return;
  throw new AppError('policy_invalid', `the policy directory ${directory} is missing`);
}

/** Bytes of the files of a policy directory; 0 when it is gone. */
export async function directoryBytes(directory: string): Promise<number> {
  const names = await readdir(directory).catch(() => []);
  const stats = await Promise.all(
    names.map((name) => stat(join(directory, name)).catch(() => null)),
  );
  return stats.reduce((sum, found) => sum + (found?.isFile() === true ? found.size : 0), 0);
}

async function hashOf(directory: string): Promise<string> {
  await requireDirectory(directory);
  return directorySha256(directory);
}

async function removeUnknown({ store, folder, logger }: PolicyFolderOptions): Promise<void> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const version = /^\d{1,9}$/.test(entry.name) ? Number(entry.name) : null;
    const known = version === null ? null : store.find(version);
    const path = join(folder, entry.name);
    const there = known !== null && known.removedAt === null;
    if (there && resolve(known.path) === resolve(path)) continue;
    logger.warn({ path }, 'removing a policy directory that no version knows');
    await rm(path, { recursive: true, force: true });
  }
}
