/**
 * What every end-to-end test needs: a temporary folder, servers that are ended whatever happens,
 * plain HTTP calls, and data folders with several policy versions registered before the first
 * start.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { systemClock } from '../../core/clock.ts';
import { directorySha256 } from '../../core/trainer/candidate.ts';
import { openDatabase } from '../../db/open.ts';
import { openStores } from '../../db/stores.ts';
import type { Stores } from '../../db/stores.ts';
import { firstPolicy } from '../support/policy-copies.ts';
import { TestServer } from '../support/server-process.ts';
import type { LaunchOptions } from '../support/server-process.ts';

const CALL_MS = 30_000;

export interface Fixture {
  /** A path that nothing is at yet. */
  path: (name: string) => string;
  /** Starts a process; it need not become ready. */
  launch: (options: LaunchOptions) => TestServer;
}

/** Call once in a test file. Servers that still run at its end are killed. */
export function fixture(): Fixture {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-e2e-'));
  const servers: TestServer[] = [];
  let count = 0;
  afterAll(async () => {
    await Promise.all(servers.map((server) => server.end('SIGKILL')));
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    path: (name) => join(folder, `${count++}-${name}`),
    launch: (options) => {
      const server = new TestServer(options);
      servers.push(server);
      return server;
    },
  };
}

export interface HttpAnswer {
  status: number;
  headers: Headers;
  /** Parsed JSON. */
  body: ReturnType<typeof JSON.parse>;
}

/** One call; a text body is sent as it is. */
export async function call(
  server: Pick<TestServer, 'url'>,
  method: string,
  path: string,
  body?: unknown,
  contentType = 'application/json',
): Promise<HttpAnswer> {
  const response = await fetch(server.url + path, {
    method,
    signal: AbortSignal.timeout(CALL_MS),
    ...(body !== undefined && {
      headers: { 'content-type': contentType },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    }),
  });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

/** Opens the stores of a data folder that no server uses; they are closed afterwards. */
export async function withStores<T>(
  dataFolder: string,
  work: (stores: Stores) => T | Promise<T>,
): Promise<T> {
  const stores = openStores(openDatabase(join(dataFolder, 'ramify.db')));
  try {
    return await work(stores);
  } finally {
    stores.close();
  }
}

/**
 * A data folder whose registry holds the shipped policy as active version 1 and one candidate for
 * each `write`, in <data>/policies/2, 3, ...; each has the version before it as its parent.
 */
export async function dataFolderWithPolicies(
  dataFolder: string,
  writes: readonly ((directory: string) => void)[],
): Promise<void> {
  await withStores(dataFolder, async ({ policies }) => {
    const register = async (version: number, path: string): Promise<void> => {
      policies.register({
        version,
        parentVersion: version === 1 ? null : version - 1,
        kind: 'full',
        path,
        sha256: await directorySha256(path),
        sourceRunId: null,
        status: version === 1 ? 'active' : 'candidate',
        evaluation: null,
        createdAt: systemClock.now(),
      });
    };
    await register(1, firstPolicy);
    for (const [i, write] of writes.entries()) {
      const path = join(dataFolder, 'policies', String(i + 2));
      write(path);
      await register(i + 2, path);
    }
  });
}
