/**
 * The whole HTTP application on real stores, the real text layer, real tools and the
 * scripted engine and trainer. Every answer that a test gets through `call` has been checked
 * against the contract: status, media type, body, error code, and the headers that every answer
 * carries.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../core/clock.ts';
import { idGenerator } from '../../core/ids.ts';
import { quiet } from '../../core/log.ts';
import type { Tool } from '../../core/ports.ts';
import { DEFAULT_TENANT } from '../../core/records.ts';
import type { Task } from '../../core/records.ts';
import { writeEmbeddedTextFiles } from '../../core/text/embedded-text-files.ts';
import { loadText } from '../../core/text/load-text.ts';
import { writeLlamaFiles } from '../../core/text/testing/llama-files.ts';
import { writeQwenFiles } from '../../core/text/testing/qwen-files.ts';
import { createToolRegistry } from '../../core/tools/registry.ts';
import { searchTool } from '../../core/tools/search-tool.ts';
import { openCollections } from '../../db/collection-store.ts';
import { openDatabase } from '../../db/open.ts';
import { openSearchIndex } from '../../db/search-index.ts';
import { openStores } from '../../db/stores.ts';
import { AgentRuns } from '../agent-runs.ts';
import type { AgentRunsDeps } from '../agent-runs.ts';
import { createApp } from '../app.ts';
import type { AppDeps } from '../app.ts';
import { Collections } from '../collections.ts';
import { loadContract } from '../contract/contract.ts';
import type { OperationId } from '../contract/contract.ts';
import { parseMetrics } from '../feedback-metrics.ts';
import { KeyRing } from '../key-ring.ts';
import type { KeyRequest } from '../key-ring.ts';
import { KeyUsage } from '../key-usage.ts';
import { Lifecycle } from '../lifecycle.ts';
import { preparePolicies } from '../policy-folder.ts';
import { PolicyReleases } from '../policy-releases.ts';
import type { ReleaseSettings } from '../policy-releases.ts';
import { removeOldPolicies } from '../policy-retention.ts';
import { PolicyService } from '../policy-service.ts';
import { RunFiles } from '../run-files.ts';
import { TrainingManager } from '../training-manager.ts';
import type { TrainingManagerOptions } from '../training-manager.ts';
import { ScriptedEngine } from './scripted-engine.ts';
import { scriptedTrainer } from './scripted-trainer.ts';
import type { TrainerPlan } from './scripted-trainer.ts';

const contract = loadContract();

/** What was answered, parsed: the contract has judged its shape, tests read it freely. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Parsed = any;

export interface CallOptions {
  path?: Record<string, string | number>;
  query?: Record<string, string | number>;
  headers?: Record<string, string>;
  /** An object is sent as JSON; text and bytes as they are. */
  body?: unknown;
  signal?: AbortSignal;
}

export interface Answer {
  operation: OperationId;
  status: number;
  headers: Headers;
  /** Parsed JSON; of an event stream the list of its data, parsed; else text. */
  body: Parsed;
  /** Of an event stream: the raw text. */
  text: string;
  code: string | null;
}

export interface Harness {
  app: ReturnType<typeof createApp>;
  deps: AppDeps;
  engine: ScriptedEngine;
  releases: PolicyReleases;
  plan: TrainerPlan;
  policiesFolder: string;
  /** Where training runs keep what they need to go on. */
  runsFolder: string;
  /** While set, every method of every store throws it. */
  fault: { thrown: Error | null };
  call(operation: OperationId, options?: CallOptions): Promise<Answer>;
  /** Makes a key, an agent's unless said otherwise; gives the headers that carry it. */
  key(request?: Partial<KeyRequest>): Promise<KeyHeaders>;
  /** Training as after a restart of the server, on the same stores and files. */
  restartTraining(): Promise<void>;
  /** Agent runs as after a stop and a new start of the server, on the same stores. */
  restartAgents(): Promise<void>;
  close(): Promise<void>;
}

export type PolicyProtocol = 'tags' | 'hermes' | 'llama';
export interface KeyHeaders extends Record<string, string> {
  authorization: string;
}

export interface HarnessOptions {
  protocol?: PolicyProtocol;
  /** Added to the first policy's generation_config.json. */
  generation?: Record<string, unknown>;
  contextTokens?: number;
  schedule?: TrainingManagerOptions['schedule'];
  release?: Partial<ReleaseSettings>;
  policiesKept?: number;
  agentRuns?: Partial<AgentRunsDeps>;
  /** In the place of the search over one document. */
  tools?: readonly Tool[];
}

/** Declared beside reward, comment and demonstration. */
const METRICS = '{"stars":{"type":"number","min":1,"max":5},"helpful":{"type":"boolean"}}';

export const TEXTS = [
  'What is the capital of France? Paris is the capital of France.',
  'I need to search for France. The answer is Paris.',
];

/** One search for France, then the answer. */
export const CAPITAL_SCRIPT = (text: string): string =>
  text.includes('<result>')
    ? '<think>The result says Paris.</think><answer>\\boxed{Paris}</answer><|im_end|>'
    : '<think>I need to search.</think><search>capital of France</search>';

export const ANSWER_SCRIPT = (): string =>
  '<think>I know it.</think><answer>\\boxed{Paris}</answer><|im_end|>';

export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-api-'));
  const firstPolicy = join(folder, 'first');
  cpSync(policyFiles(options.protocol ?? 'tags'), firstPolicy, { recursive: true });
  if (options.generation !== undefined) stateGeneration(firstPolicy, options.generation);
  const clock = systemClock;
  const newId = idGenerator(clock);
  const db = openDatabase(join(folder, 'ramify.db'));
  const fault: Harness['fault'] = { thrown: null };
  const stores = breakable(openStores(db, clock), fault);
  const policiesFolder = join(folder, 'policies');
  const logger = quiet;
  await preparePolicies({
    store: stores.policies,
    folder: policiesFolder,
    firstPolicy,
    check: (directory) => void loadText(directory),
    clock,
    logger,
  });
  const engine = new ScriptedEngine(ANSWER_SCRIPT, options.contextTokens);
  const common = { clock, newId, logger };
  const policies = new PolicyService({ store: stores.policies, engine, loadText, ...common });
  await policies.start();
  const settings = { canary: null, rollbackTolerance: 0.02, ...options.release };
  const releases = new PolicyReleases({ stores, policies, settings, ...common });
  const kept = options.policiesKept ?? 100;
  const retention = { stores, policies, folder: policiesFolder, kept, ...common };
  const runsFolder = join(folder, 'checkpoints');
  const index = openSearchIndex([
    { id: '1', title: 'France', text: 'Paris is the capital of France.' },
  ]);
  const tools = createToolRegistry(options.tools ?? [searchTool(index)], { clock });
  const shipped = join(folder, 'documents.jsonl');
  writeFileSync(shipped, '{"id":"1","title":"France","text":"Paris is in France."}\n');
  const collectionStore = openCollections(join(folder, 'collections.db'), shipped, clock);
  const collections = new Collections(breakable(collectionStore, fault), tools, logger);
  const lifecycle = new Lifecycle();
  const plan: TrainerPlan = { end: 'pass', rollouts: 3 };
  const trainingOptions: TrainingManagerOptions = {
    stores,
    policies,
    releases,
    startTrainer: scriptedTrainer(plan),
    runFiles: new RunFiles(runsFolder),
    afterRun: () => removeOldPolicies(retention),
    restartMs: 1,
    policiesFolder,
    threads: 1,
    device: 'cpu',
    schedule: options.schedule ?? { minNewScored: null, everyMinutes: null },
    clock,
    newId,
    logger,
  };
  const training = new TrainingManager(trainingOptions);
  const keys = new KeyRing({ store: stores.keys, ...common });
  const usage = new KeyUsage({ store: stores.keys, clock, logger });
  const shared = { stores, engine, policies, tools, lifecycle, usage, ...common };
  const agentDeps = { ...shared, ...options.agentRuns };
  const agentRuns = new AgentRuns(agentDeps);
  await agentRuns.start();
  const metrics = parseMetrics(METRICS);
  const checkStorage = (): void => void db.sqlite.exec('BEGIN IMMEDIATE; ROLLBACK');
  const made = { contract, collections, keys, agentRuns, training, metrics };
  const deps: AppDeps = { ...shared, ...made, checkStorage };
  const app = createApp(deps);
  return {
    app,
    deps,
    engine,
    releases,
    plan,
    policiesFolder,
    runsFolder,
    fault,
    call: (operation, call = {}) => callOperation(app, operation, call),
    key: (request) => makeKey(deps, request),
    restartTraining: async () => {
      await deps.training.stop();
      deps.training = new TrainingManager(trainingOptions);
      await deps.training.start();
    },
    restartAgents: async () => {
      deps.agentRuns.stop();
      deps.agentRuns = new AgentRuns(agentDeps);
      await deps.agentRuns.start();
    },
    close: async () => {
      fault.thrown = null;
      deps.agentRuns.stop();
      await Promise.all([lifecycle.stop(2_000), deps.training.stop(), releases.stop()]);
      index.close();
      collections.stop();
      collectionStore.close();
      stores.close();
      rmSync(folder, { recursive: true });
    },
  };
}

/** The first one is an admin's, or the API would not take it. */
async function makeKey({ keys }: AppDeps, request: Partial<KeyRequest> = {}): Promise<KeyHeaders> {
  const base: KeyRequest = {
    name: 'test',
    tenant: DEFAULT_TENANT,
    scopes: ['admin'],
    expiresAt: null,
    requestsPerMinute: null,
    concurrency: null,
    tokensPerDay: null,
  };
  if (!keys.required) await keys.create(base);
  const { secret } = await keys.create({ ...base, scopes: ['agent'], ...request });
  return { authorization: `Bearer ${secret}` };
}

function stateGeneration(directory: string, fields: Record<string, unknown>): void {
  const path = join(directory, 'generation_config.json');
  const stated = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  writeFileSync(path, JSON.stringify({ ...stated, ...fields }));
}

/** Training a tokenizer takes a while, so the files of each protocol are made once and copied. */
const made = new Map<PolicyProtocol, string>();

function policyFiles(protocol: PolicyProtocol): string {
  const known = made.get(protocol);
  if (known !== undefined) return known;
  const directory = mkdtempSync(join(tmpdir(), `ramify-${protocol}-`));
  made.set(protocol, directory);
  process.once('exit', () => rmSync(directory, { recursive: true }));
  if (protocol === 'hermes') writeQwenFiles(directory);
  else if (protocol === 'llama') writeLlamaFiles(directory);
  else writeEmbeddedTextFiles(directory, { texts: TEXTS, vocabularySize: 320, tools: ['search'] });
  return directory;
}

/** Stores that fail on command, wherever a handler touches them. */
function breakable<S extends object>(stores: S, fault: Harness['fault']): S {
  const guard = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(object, name) {
        const value: unknown = Reflect.get(object, name, object);
        if (typeof value !== 'function') {
          return typeof value === 'object' && value !== null ? guard(value) : value;
        }
        return (...args: unknown[]): unknown => {
          if (fault.thrown !== null) throw fault.thrown;
          return (value as (...args: unknown[]) => unknown).apply(object, args);
        };
      },
    });
  return guard(stores);
}

async function callOperation(
  app: Harness['app'],
  id: OperationId,
  options: CallOptions,
): Promise<Answer> {
  const operation = contract.operation(id);
  const path = operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(String(options.path?.[name] ?? `missing-${name}`)),
  );
  const query = new URLSearchParams(
    Object.entries(options.query ?? {}).map(([name, value]): [string, string] => [
      name,
      String(value),
    ]),
  ).toString();
  const { body } = options;
  const hasBody = body !== undefined;
  const response = await app.request(`http://127.0.0.1:8787${path}${query && `?${query}`}`, {
    method: operation.method,
    headers: {
      ...(hasBody && operation.bodyType !== null && { 'content-type': operation.bodyType }),
      ...options.headers,
    },
    ...(hasBody && { body: bodyOf(body) }),
    ...(options.signal && { signal: options.signal }),
  });
  return checkAnswer(id, response);
}

function bodyOf(body: unknown): string | Uint8Array<ArrayBuffer> {
  if (typeof body === 'string') return body;
  return body instanceof Uint8Array ? Uint8Array.from(body) : JSON.stringify(body);
}

/** Throws when the answer is not as documented. */
export async function checkAnswer(id: OperationId, response: Response): Promise<Answer> {
  const text = await response.text();
  const mediaType = (response.headers.get('content-type') ?? '').split(';')[0] as string;
  const body: Parsed =
    mediaType === 'application/json'
      ? JSON.parse(text)
      : mediaType === 'text/event-stream'
        ? sseData(text)
        : text;
  const documented = mediaType === 'text/event-stream' ? withoutErrors(body) : body;
  const wrong = contract.checkResponse(id, response.status, mediaType, documented);
  if (!/^req_/.test(response.headers.get('x-request-id') ?? '')) wrong.push('no x-request-id');
  const { status } = response;
  if ((status === 503 || status === 429) && response.headers.get('retry-after') === null) {
    wrong.push(`${id} ${status}: no retry-after`);
  }
  if ((status === 401) !== response.headers.has('www-authenticate')) {
    wrong.push(`${id} ${status}: www-authenticate belongs to 401`);
  }
  if (wrong.length > 0) throw new Error(wrong.join('\n'));
  const code: string | null = response.status < 400 ? null : body.error.code;
  return { operation: id, status: response.status, headers: response.headers, body, text, code };
}

/** The data lines of an event stream, parsed; `[DONE]` is left out. */
export function sseData(text: string): Parsed[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('data: ') && line !== 'data: [DONE]')
    .map((line) => JSON.parse(line.slice('data: '.length)));
}

/** Error frames have a schema of their own. */
function withoutErrors(frames: Parsed[]): Parsed[] {
  return frames.filter((frame) => {
    // Not an event that has an error.
    if (frame.error === undefined || 'type' in frame) return true;
    const mistake = contract.checkSchema('Error', frame);
    if (mistake !== null) throw new Error(`error frame: ${mistake.message}`);
    return false;
  });
}

export const TASKS: Task[] = (['train', 'gate'] as const).map((split) => ({
  id: `task_${split}`,
  family: 'knowledge',
  split,
  question: 'What is the capital of France?',
  truths: ['Paris'],
  verifier: 'qa-f1',
  tools: ['search'],
  metadata: { hops: 1 },
}));

/** Waits for a condition; gives up after at least 20 s, because a test machine may be busy. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 4_000; i++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`never came true: ${condition.toString()}`);
}
