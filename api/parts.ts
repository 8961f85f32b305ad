/**
 * Everything that a program on a data folder is made of but HTTP, wired and started in order: the
 * folder's lock, the database, policies, tools, the engine, training. The server and the command
 * line are made of the same parts; each part that was started puts its end into `cleanups`. The
 * only place that knows which implementation is behind which interface.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../core/clock.ts';
import type { Clock } from '../core/clock.ts';
import { findDevices } from '../core/engine/find-devices.ts';
import { startPolicyEngine } from '../core/engine/policy-engine.ts';
import type { PolicyEngine } from '../core/engine/types.ts';
import { toAppError } from '../core/errors.ts';
import { idGenerator } from '../core/ids.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import { chooseDevice, DEVICES } from '../core/model/devices.ts';
import { loadPolicy, textDirectory } from '../core/model/lora-directory.ts';
import type { Device } from '../core/model/session.ts';
import { builtModule, packageRoot } from '../core/paths.ts';
import type { ToolCatalogue } from '../core/ports.ts';
import { loadText } from '../core/text/load-text.ts';
import type { ToolRegistry } from '../core/tools/registry.ts';
import { trainerStarter } from '../core/trainer/start-trainer.ts';
import { openCollections } from '../db/collection-store.ts';
import type { CollectionStore } from '../db/collection-store.ts';
import { lockFolder } from '../db/folder-lock.ts';
import { openDatabase } from '../db/open.ts';
import { openStores } from '../db/stores.ts';
import type { Stores } from '../db/stores.ts';
import { Collections } from './collections.ts';
import type { Config } from './config.ts';
import { loadContract } from './contract/contract.ts';
import type { Contract } from './contract/contract.ts';
import type { FeedbackMetrics } from './feedback-metrics.ts';
import { connectTools } from './declared-tools.ts';
import { collectionsFile, shippedDocuments, startOwnTools } from './own-tools.ts';
import { preparePolicies } from './policy-folder.ts';
import { PolicyReleases } from './policy-releases.ts';
import { removeOldPolicies } from './policy-retention.ts';
import { PolicyService } from './policy-service.ts';
import { RunFiles } from './run-files.ts';
import { readTaskLines } from './task-lines.ts';
import { TrainingManager } from './training-manager.ts';

/** What was started, to be stopped in reverse. */
export type Cleanup = () => void | Promise<void>;

export interface Parts {
  contract: Contract;
  stores: Stores;
  tools: ToolCatalogue;
  collections: Collections;
  engine: PolicyEngine;
  policies: PolicyService;
  releases: PolicyReleases;
  training: TrainingManager;
  metrics: FeedbackMetrics;
  clock: Clock;
  newId: NewId;
  /** Throws when another program holds the database or the disk is read-only by now. */
  checkStorage: () => void;
}

export const policyText = (directory: string) => loadText(textDirectory(directory));

/** Throws policy_invalid when a directory cannot serve; an adapter needs its base for that. */
function checkPolicy(directory: string): void {
  policyText(directory);
  const policy = loadPolicy(directory);
  if ('adapter' in policy) policy.baseWeights();
}

/**
 * Live traffic is not looked at before `releases.start()`, interrupted training runs are not taken
 * up and the schedule is not looked at before `training.start()`.
 */
export async function startParts(
  config: Config,
  logger: Logger,
  cleanups: Cleanup[],
): Promise<Parts> {
  const clock = systemClock;
  const newId = idGenerator(clock);
  const device = await takeDevice(config, logger);
  const contract = loadContract();
  cleanups.push(lockFolder(config.dataFolder));
  const db = openDatabase(join(config.dataFolder, 'ramify.db'));
  const stores = openStores(db, clock);
  cleanups.push(() => stores.close());
  const policiesFolder = join(config.dataFolder, 'policies');
  const { policyFolder: firstPolicy } = config;
  await preparePolicies({
    store: stores.policies,
    folder: policiesFolder,
    firstPolicy,
    check: checkPolicy,
    clock,
    logger,
  });
  const store = openCollections(collectionsFile(config.dataFolder), shippedDocuments, clock);
  cleanups.push(() => store.close());
  const tools = await startTools(config, store, logger, cleanups);
  const collections = new Collections(store, tools, logger);
  cleanups.push(() => collections.stop());
  if (config.tasks === 'shipped' && stores.tasks.count() === 0) {
    importShippedTasks(stores, contract, newId);
  }
  const engine = await startEngine(config, device, logger, cleanups);
  const policies = new PolicyService({
    store: stores.policies,
    engine,
    loadText: policyText,
    clock,
    newId,
    logger,
  });
  await policies.start();
  const settings = config.release;
  const releases = new PolicyReleases({ stores, policies, settings, clock, newId, logger });
  const kept = config.policiesKept;
  const retention = { stores, policies, folder: policiesFolder, kept, clock, newId, logger };
  const training = new TrainingManager({
    stores,
    policies,
    releases,
    runFiles: new RunFiles(join(config.dataFolder, 'checkpoints')),
    afterRun: () => removeOldPolicies(retention),
    startTrainer: trainerStarter({
      module: builtModule(import.meta.url, './trainer-process.ts'),
      args: [collectionsFile(config.dataFolder), config.toolsFile ?? ''],
      logger,
    }),
    policiesFolder,
    threads: config.trainerThreads,
    device,
    schedule: config.schedule,
    clock,
    newId,
    logger,
  });
  const checkStorage = (): void => void db.sqlite.exec('BEGIN IMMEDIATE; ROLLBACK');
  const parts = { contract, stores, tools, collections, engine, policies, releases, training };
  return { ...parts, metrics: config.metrics, clock, newId, checkStorage };
}

/** Waits for MCP servers a little; the tools of one that is slow come later. */
export async function startTools(
  { tools: declared }: Pick<Config, 'tools'>,
  collections: CollectionStore | null,
  logger: Logger,
  cleanups: Cleanup[],
): Promise<ToolRegistry> {
  const registry = await startOwnTools(collections, logger, cleanups);
  const waitMs = LIMITS.mcpStartWaitMs;
  cleanups.push(await connectTools(registry, declared, { logger, waitMs }));
  return registry;
}

export async function startEngine(
  config: Config,
  device: Device,
  logger: Logger,
  cleanups: Cleanup[],
): Promise<PolicyEngine> {
  const { engineThreads: threads, dtype, kvBytesMax } = config;
  const engine = await startPolicyEngine({ threads, device, dtype, kvBytesMax, logger });
  cleanups.push(() => engine.stop());
  return engine;
}

/** The device that the settings ask for; the log says which, and why not a better one. */
export async function takeDevice(config: Config, logger: Logger): Promise<Device> {
  const { device: setting, dtype, engineThreads, trainerThreads } = config;
  const tried = setting === 'auto' ? DEVICES : [setting];
  const findings = await findDevices(tried, { thorough: setting !== 'auto' });
  const { device, passedOver } = chooseDevice(setting, dtype, findings);
  const name = findings.find((finding) => finding.device === device)?.name ?? undefined;
  const fields = { device, name, dtype, engineThreads, trainerThreads, passedOver };
  logger.info(fields, `computing on ${device}`);
  return device;
}

/** The tasks that ship with the package, once. */
function importShippedTasks(stores: Stores, contract: Contract, newId: NewId): void {
  const folder = join(packageRoot, 'corpus', 'tasks');
  const names = readdirSync(folder).filter((name) => name.endsWith('.jsonl'));
  const tasks = names.flatMap((name) =>
    readTaskLines(contract, readFileSync(join(folder, name), 'utf8'), newId),
  );
  stores.tasks.import(tasks);
}

/** Every part is stopped, also when one before it failed to. */
export async function runCleanups(cleanups: Cleanup[], logger: Logger): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) {
    try {
      await cleanup();
    } catch (thrown) {
      logger.error({ error: toAppError(thrown).message }, 'a part did not stop in order');
    }
  }
}
