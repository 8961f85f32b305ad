/**
 * Deletes the files of old policy versions, so that a server that learns for months does not fill
 * its disk. Kept: the live version, the canary, what a rollback goes to, what is loaded, what a
 * training run started from, what an unfinished agent run is pinned to, the base of every adapter
 * that is kept, and of the others the newest few. Rows stay for ever; a version without files
 * cannot serve again.
 *
 * Only directories that lie in the policies folder are ever deleted: the first policy is a guest.
 */
import { rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import type { Logger } from '../core/log.ts';
import { baseDirectoryOf } from '../core/model/lora-directory.ts';
import type { PolicyRecord } from '../core/records.ts';
import type { Stores } from '../db/stores.ts';
import type { PolicyService } from './policy-service.ts';

export interface RetentionOptions {
  stores: Stores;
  policies: PolicyService;
  /** <data>/policies */
  folder: string;
  /** Versions that nothing needs and that are kept all the same. */
  kept: number;
  clock: Clock;
  newId: NewId;
  logger: Logger;
}

/** Deletes what is too much, between two moves of the live policy. Never rejects. */
export function removeOldPolicies(options: RetentionOptions): Promise<void> {
  const { policies, logger } = options;
  return policies
    .betweenMoves(() => removeExcess(options))
    .catch((thrown: unknown) => {
      const { message } = toAppError(thrown);
      logger.warn({ error: message }, 'old policy files could not be deleted');
    });
}

async function removeExcess(options: RetentionOptions): Promise<void> {
  const { stores, folder, kept, clock, newId, logger } = options;
  const all = stores.policies.withFiles();
  const inUse = versionsInUse(options);
  const others = all.filter(
    ({ version, path }) => !inUse.has(version) && dirname(path) === resolve(folder),
  );
  let excess = others.slice(0, Math.max(0, others.length - kept));
  const bases = basesOf(all.filter((policy) => !excess.includes(policy)));
  excess = excess.filter(({ path }) => !bases.has(resolve(path)));
  for (const { version, path } of excess) {
    // The row first: a crash in between leaves files that the next start deletes.
    stores.policies.markRemoved({
      id: newId('decision'),
      kind: 'removed',
      version,
      otherVersion: null,
      cause: 'retention',
      reason: `only the newest ${kept} versions that nothing uses are kept`,
      figures: {},
      trainingRunId: null,
      createdAt: clock.now(),
    });
    await rm(path, { recursive: true, force: true });
    logger.info({ version, path }, 'files of an old policy deleted');
  }
}

function versionsInUse({ stores, policies }: RetentionOptions): Set<number> {
  const { policies: store, training, agentRuns } = stores;
  const inUse = new Set<number>();
  const add = (version: number | null | undefined): void => {
    if (version !== null && version !== undefined) inUse.add(version);
  };
  const active = store.active();
  add(active?.version);
  add(active?.parentVersion);
  add(store.canary()?.version);
  if (active !== null) add(store.decisions.newest(active.version, ['activated'])?.otherVersion);
  for (const { baseVersion } of training.unfinished()) add(baseVersion);
  for (const version of agentRuns.versionsInUse()) add(version);
  for (const { version } of store.withFiles()) if (policies.isLoaded(version)) add(version);
  return inUse;
}

/**
 * Directories that adapters lie over. An adapter that can't be read stops the deletion: a base that
 * goes is lost, a full disk is not.
 */
function basesOf(policies: readonly PolicyRecord[]): Set<string> {
  const adapters = policies.filter(({ kind }) => kind === 'lora');
  return new Set(adapters.map(({ path }) => resolve(baseDirectoryOf(path))));
}
