/**
 * The reads of bench/load.ts: lists, single things and trees, in turns, at a steady rate whether
 * the server keeps up or not. A read's time counts from when it was due, so that a server that
 * stands still is seen in all reads that it kept waiting.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { LoadClient } from './load-client.ts';

interface List {
  data: { id: string }[];
}

/** Until there is something to read, this often. */
const FIRST_LOOK_MS = 500;

export interface TimedRead {
  name: string;
  ms: number;
}

/** Ids that the newest lists told. */
interface Known {
  trajectory: string;
  run: string;
}

const LISTS = {
  trajectories: '/v1/trajectories',
  'trajectories, filtered': '/v1/trajectories?tool=search&status=completed&limit=50',
  runs: '/v1/agent/runs',
  'runs that wait': '/v1/agent/runs?status=requires_action&limit=100',
  models: '/v1/models',
  tools: '/v1/tools',
  tasks: '/v1/tasks',
  policies: '/v1/admin/policies',
  decisions: '/v1/admin/decisions',
  'training runs': '/v1/admin/training-runs',
  audit: '/v1/admin/audit',
} as const;

const SINGLES: Readonly<Record<string, (known: Known) => string>> = {
  trajectory: ({ trajectory }) => `/v1/trajectories/${trajectory}`,
  'with tokens': ({ trajectory }) => `/v1/trajectories/${trajectory}?include=tokens`,
  tree: ({ trajectory }) => `/v1/trajectories/${trajectory}/tree`,
  feedback: ({ trajectory }) => `/v1/trajectories/${trajectory}/feedback`,
  run: ({ run }) => `/v1/agent/runs/${run}`,
  readiness: () => '/readyz',
};

/** Reads until the client's end; `onRead` gets each that was answered. */
export async function keepReading(
  client: LoadClient,
  readsPerSecond: number,
  onRead: (read: TimedRead) => void,
): Promise<void> {
  const known: Known = { trajectory: '', run: '' };
  while ((known.trajectory === '' || known.run === '') && !client.signal.aborted) {
    await client.pause(FIRST_LOOK_MS);
    await client.once(async () => {
      known.trajectory = await newest(client, LISTS.trajectories);
      known.run = await newest(client, LISTS.runs);
    });
  }
  const begunAt = performance.now();
  const under = new Set<Promise<boolean>>();
  for (let i = 0; !client.signal.aborted; i++) {
    const due = begunAt + (i * 1000) / readsPerSecond;
    const early = due - performance.now();
    if (early > 0) await sleep(early);
    const read = client.once(async () => {
      const name = await readOne(client, i, known);
      onRead({ name, ms: performance.now() - due });
    });
    under.add(read);
    void read.then(() => under.delete(read));
  }
  await Promise.all(under);
}

async function newest(client: LoadClient, path: string): Promise<string> {
  return (await client.json<List>('GET', `${path}?limit=1`)).data[0]?.id ?? '';
}

async function readOne(client: LoadClient, i: number, known: Known): Promise<string> {
  const lists = Object.entries(LISTS);
  const singles = Object.entries(SINGLES);
  const at = i % (lists.length + singles.length);
  const list = lists[at];
  if (list === undefined) {
    const [name, pathOf] = singles[at - lists.length]!;
    await client.json('GET', pathOf(known));
    return name;
  }
  const [name, path] = list;
  const { data } = await client.json<List>('GET', path);
  if (name === 'trajectories') known.trajectory = data[0]?.id ?? known.trajectory;
  if (name === 'runs') known.run = data[0]?.id ?? known.run;
  return name;
}
