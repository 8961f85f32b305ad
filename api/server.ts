/**
 * The server, wired: starts the parts in order and stops them in reverse. The port is bound first,
 * so that a port in use is known before anything is touched; until all parts stand, requests are
 * answered `not_ready`. The only place that knows which implementation is behind which interface.
 */
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import type { Server as HttpServer } from 'node:http';
import { join } from 'node:path';
import { createAdaptorServer } from '@hono/node-server';
import { systemClock } from '../core/clock.ts';
import { findDevices } from '../core/engine/find-devices.ts';
import { startPolicyEngine } from '../core/engine/policy-engine.ts';
import type { PolicyEngine } from '../core/engine/types.ts';
import { AppError, toAppError } from '../core/errors.ts';
import { idGenerator } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import { chooseDevice, DEVICES } from '../core/model/devices.ts';
import { loadPolicy, textDirectory } from '../core/model/lora-directory.ts';
import type { Device } from '../core/model/session.ts';
import { builtModule, packageRoot } from '../core/paths.ts';
import { loadText } from '../core/text/load-text.ts';
import { javascriptTool } from '../core/tools/javascript-tool.ts';
import { createToolRegistry } from '../core/tools/registry.ts';
import { searchTool } from '../core/tools/search-tool.ts';
import { trainerStarter } from '../core/trainer/start-trainer.ts';
import { lockFolder } from '../db/folder-lock.ts';
import { openDatabase } from '../db/open.ts';
import { openSearchIndex } from '../db/search-index.ts';
import { openStores } from '../db/stores.ts';
import type { Stores } from '../db/stores.ts';
import { AgentRuns } from './agent-runs.ts';
import { createApp } from './app.ts';
import type { AppDeps } from './app.ts';
import type { Config } from './config.ts';
import { loadContract } from './contract/contract.ts';
import { Lifecycle } from './lifecycle.ts';
import { preparePolicies } from './policy-folder.ts';
import { PolicyService } from './policy-service.ts';
import { problemResponse } from './problem.ts';
import { readTaskLines } from './task-lines.ts';
import { TrainingManager } from './training-manager.ts';

export interface RunningServer {
  /** `http://127.0.0.1:8787` */
  readonly url: string;
  /** Stops accepting, finishes what is under way within the limit, closes everything. */
  stop(): Promise<void>;
}

type Fetch = (request: Request) => Response | Promise<Response>;

/** What was started, to be stopped in reverse. */
type Cleanup = () => void | Promise<void>;

/** @throws AppError with one line that says what is wrong; then nothing is left running. */
export async function startServer(config: Config, logger: Logger): Promise<RunningServer> {
  const cleanups: Cleanup[] = [];
  try {
    const front = await listen(config);
    cleanups.push(() => closeHttp(front.server));
    const { app, stop } = await startParts(config, logger, cleanups);
    front.serve((request) => app.fetch(request));
    return {
      url: front.url,
      stop: async () => {
        front.server.close();
        await stop();
        await runCleanups(cleanups, logger);
      },
    };
  } catch (error) {
    await runCleanups(cleanups, logger);
    throw error;
  }
}

const policyText = (directory: string) => loadText(textDirectory(directory));

/** Throws policy_invalid when a directory cannot serve; an adapter needs its base for that. */
function checkPolicy(directory: string): void {
  policyText(directory);
  const policy = loadPolicy(directory);
  if ('adapter' in policy) policy.baseWeights();
}

async function startParts(
  config: Config,
  logger: Logger,
  cleanups: Cleanup[],
): Promise<{ app: ReturnType<typeof createApp>; stop: () => Promise<void> }> {
  const clock = systemClock;
  const newId = idGenerator(clock);
  const device = await takeDevice(config, logger);
  const contract = loadContract();
  cleanups.push(lockFolder(config.dataFolder));
  const db = openDatabase(join(config.dataFolder, 'ramify.db'));
  const stores = openStores(db, clock);
  cleanups.push(() => stores.close());
  markInterrupted(stores, clock.now(), logger);
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
  const tools = startTools(logger, cleanups);
  if (stores.tasks.count() === 0) importShippedTasks(stores, contract, newId);
  const engine = await startEngine(config, device, logger, cleanups);
  const policies = new PolicyService({
    store: stores.policies,
    engine,
    loadText: policyText,
    logger,
  });
  await policies.start();
  const lifecycle = new Lifecycle();
  const training = new TrainingManager({
    stores,
    policies,
    startTrainer: trainerStarter({
      module: builtModule(import.meta.url, './trainer-process.ts'),
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
  training.start();
  const shared = { stores, engine, policies, tools, lifecycle, clock, newId, logger };
  const agentRuns = new AgentRuns(shared);
  // Fails when another program holds the database or the disk is read-only by now.
  const checkStorage = (): void => void db.sqlite.exec('BEGIN IMMEDIATE; ROLLBACK');
  const deps: AppDeps = { ...shared, contract, agentRuns, training, checkStorage };
  const stop = async (): Promise<void> => {
    await Promise.all([lifecycle.stop(LIMITS.shutdownTimeoutMs), training.stop()]);
  };
  return { app: createApp(deps), stop };
}

/** Binds the port; requests before `serve` is called are answered not_ready. */
async function listen(
  config: Config,
): Promise<{ server: HttpServer; url: string; serve: (fetch: Fetch) => void }> {
  let current: Fetch = () =>
    problemResponse(new AppError('not_ready', 'the server is starting'), 'none');
  const server = createAdaptorServer({
    fetch: (request: Request) => current(request),
    overrideGlobalObjects: false,
  }) as HttpServer;
  const { host, port } = config;
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    const why = code === 'EADDRINUSE' ? 'is in use' : `cannot be bound (${code ?? 'unknown'})`;
    throw new AppError('config_invalid', `RAMIFY_PORT=${port}: the port ${why} on ${host}`, {
      cause,
    });
  }
  const address = server.address();
  const bound = typeof address === 'object' && address !== null ? address.port : port;
  const name = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
  return { server, url: `http://${name}:${bound}`, serve: (fetch) => (current = fetch) };
}

/** Sockets of clients that left or idle would keep `close` waiting for seconds. */
async function closeHttp(server: HttpServer): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    if (server.listening) server.close(() => resolve());
    else resolve();
  });
  server.closeAllConnections();
  await closed;
}

function markInterrupted(stores: Stores, nowMs: number, logger: Logger): void {
  const trainingRuns = stores.training.markInterrupted(nowMs);
  const agentRuns = stores.agentRuns.markInterrupted(nowMs);
  if (trainingRuns.length + agentRuns.length === 0) return;
  logger.warn({ trainingRuns, agentRuns }, 'runs of an earlier process were interrupted');
}

function startTools(logger: Logger, cleanups: Cleanup[]): AppDeps['tools'] {
  const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
  cleanups.push(() => index.close());
  const javascript = javascriptTool();
  cleanups.push(() => javascript.stop());
  return createToolRegistry([searchTool(index), javascript], { clock: systemClock, log: logger });
}

async function startEngine(
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
async function takeDevice(config: Config, logger: Logger): Promise<Device> {
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
function importShippedTasks(
  stores: Stores,
  contract: AppDeps['contract'],
  newId: AppDeps['newId'],
): void {
  const folder = join(packageRoot, 'corpus', 'tasks');
  const names = readdirSync(folder).filter((name) => name.endsWith('.jsonl'));
  const tasks = names.flatMap((name) =>
    readTaskLines(contract, readFileSync(join(folder, name), 'utf8'), newId),
  );
  stores.tasks.import(tasks);
}

/** Every part is stopped, also when one before it failed to. */
async function runCleanups(cleanups: Cleanup[], logger: Logger): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) {
    try {
      await cleanup();
    } catch (thrown) {
      logger.error({ error: toAppError(thrown).message }, 'a part did not stop in order');
    }
  }
}
