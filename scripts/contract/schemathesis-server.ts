/**
 * What schemathesis.ts does with the server beside the generated requests: puts rows into it whose
 * ids requests can name, ends the training that requests start, and reads its log afterwards.
 */
import type { Contract } from '../../api/contract/contract.ts';
import { AppError } from '../../core/errors.ts';

const CALL_MS = 60_000;
const LOOK_MS = 2_000;
const QUESTION = 'What is the capital of France?';
const LOGGED_ERROR = 50;

/** Of the calls of this file, once there is a key. */
let authorization = '';

interface Row {
  id: string;
  status: string;
  trajectory_id?: string;
}

export interface Primed {
  /** Ids by the part of a path that they follow, as schemathesis_hooks.py reads them. */
  knownIds: Record<string, string[]>;
  /** Of the key that requests are made with. */
  keyId: string;
  secret: string;
}

interface NewKey {
  key: { id: string };
  secret: string;
}

/** Keys last: from the first one on every request needs one. */
export async function primeServer(url: string): Promise<Primed> {
  const runs: Row[] = [];
  const client = { type: 'function', function: { name: 'search', parameters: {} } };
  for (const tools of [['search'], [client]]) {
    runs.push(await call<Row>(url, 'POST', '/v1/agent/runs', { input: QUESTION, tools }));
  }
  const messages = [{ role: 'user', content: QUESTION }];
  await call(url, 'POST', '/v1/chat/completions', { model: 'ramify', messages });
  const trajectories = await call<{ data: Row[] }>(url, 'GET', '/v1/trajectories');
  const response = await call<Row>(url, 'POST', '/v1/responses', { input: QUESTION });
  const trainingRun = await trainOnce(url);
  const { data: tasks } = await call<{ data: Row[] }>(url, 'GET', '/v1/tasks');
  const wish = { name: 'schemathesis', scopes: ['agent', 'admin'] };
  const own = await call<NewKey>(url, 'POST', '/v1/admin/keys', wish);
  authorization = `Bearer ${own.secret}`;
  const other = await call<NewKey>(url, 'POST', '/v1/admin/keys', { name: 'other' });
  const knownIds = {
    'agent/runs': runs.map(({ id }) => id),
    'admin/training-runs': [trainingRun],
    'admin/keys': [other.key.id],
    responses: [response.id],
    tasks: tasks.map(({ id }) => id),
    trajectories: trajectories.data.map(({ id }) => id),
    trajectory_id: trajectories.data.map(({ id }) => id),
    policies: ['1'],
  };
  return { knownIds, keyId: own.key.id, secret: own.secret };
}

/** The id of a training run that has ended. */
async function trainOnce(url: string): Promise<string> {
  const task = { family: 'knowledge', question: QUESTION, truths: ['Paris'], verifier: 'qa-f1' };
  const lines = ['train', 'gate'].map((split) => JSON.stringify({ ...task, split }));
  await call(url, 'POST', '/v1/tasks/import', lines.join('\n'), 'application/x-ndjson');
  const settings = { groupSize: 2, promptsPerStep: 1, gateTasks: 20 };
  const { id } = await call<Row>(url, 'POST', '/v1/admin/retrain', { steps: 1, settings });
  for (let i = 0; i < CALL_MS / 100; i++) {
    const { status } = await call<Row>(url, 'GET', `/v1/admin/training-runs/${id}`);
    if (!['queued', 'running'].includes(status)) return id;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new AppError('internal', `the training run ${id} did not end within ${CALL_MS} ms`);
}

/** Cancels training runs as they come, so that they do not take the processor; ends when called. */
export function stopTraining(url: string): () => Promise<void> {
  let ended = false;
  const loop = async (): Promise<void> => {
    while (!ended) {
      // A run may have ended meanwhile; whether the server still answers is looked at afterwards.
      await cancelRuns(url).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  };
  const done = loop();
  return () => {
    ended = true;
    return done;
  };
}

async function cancelRuns(url: string): Promise<void> {
  const { data } = await call<{ data: Row[] }>(url, 'GET', '/v1/admin/training-runs');
  for (const { id, status } of data) {
    if (!['queued', 'running'].includes(status)) continue;
    await call(url, 'POST', `/v1/admin/training-runs/${id}/cancel`);
  }
}

async function call<T>(
  url: string,
  method: string,
  path: string,
  body?: unknown,
  contentType = 'application/json',
): Promise<T> {
  const response = await fetch(url + path, {
    method,
    signal: AbortSignal.timeout(CALL_MS),
    headers: {
      ...(authorization !== '' && { authorization }),
      ...(body !== undefined && { 'content-type': contentType }),
    },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const answer = await response.text();
  if (!response.ok) throw new AppError('internal', `${method} ${path}: ${answer.slice(0, 500)}`);
  return JSON.parse(answer) as T;
}

interface LogLine {
  level: number;
  msg: string;
  method: string;
  path: string;
  status: number;
  code?: string;
}

/** Errors in the server's log. Prints how each operation was answered. */
export function judgeLog(log: string, contract: Contract): string[] {
  const lines = log
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as LogLine);
  const counts = new Map<string, Map<number, number>>();
  const patterns = contract.operations.map(({ id, method, path }) => {
    const pattern = new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`);
    return { id, method, pattern, parameters: path.split('{').length };
  });
  patterns.sort((a, b) => a.parameters - b.parameters);
  for (const { msg, method, path, status } of lines) {
    if (msg !== 'request') continue;
    const match = patterns.find((one) => one.method === method && one.pattern.test(path));
    const own = counts.get(match?.id ?? 'no operation') ?? new Map<number, number>();
    counts.set(match?.id ?? 'no operation', own.set(status, (own.get(status) ?? 0) + 1));
  }
  for (const [id, statuses] of [...counts].sort()) {
    const told = [...statuses].sort(([a], [b]) => a - b).map(([s, n]) => `${s} ${n} times`);
    console.log(`  ${id}: ${told.join(', ')}`);
  }
  const errors = lines.filter(({ level }) => level >= LOGGED_ERROR);
  return errors.slice(0, 10).map((line) => `the server logged ${JSON.stringify(line)}`);
}
