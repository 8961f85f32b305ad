/** A key and its row of the audit log are one: where one cannot be stored, neither is. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ApiKeyRecord, AuditRecord } from '../core/key-records.ts';
import { openDatabase } from './open.ts';
import type { Database } from './open.ts';
import { openStores } from './stores.ts';
import type { Stores } from './stores.ts';

let db: Database;
let stores: Stores;

beforeEach(() => {
  db = openDatabase(':memory:');
  stores = openStores(db);
});
afterEach(() => stores.close());

const key: ApiKeyRecord = {
  ...{ id: 'key_1', name: 'x', tenant: 'default', scopes: ['admin'], prefix: 'rk_1', hash: 'a' },
  ...{ createdAt: 0, expiresAt: null, revokedAt: null, lastUsedAt: null, previous: null },
  ...{ requestsPerMinute: null, concurrency: null, tokensPerDay: null },
};
const audit = (id: string): AuditRecord => ({
  ...{ id, keyId: null, tenant: 'default', operation: 'createKey', method: 'POST' },
  ...{ path: '/', status: 201, request: {}, requestId: 'req', createdAt: 1 },
});

test('both are stored', async () => {
  await stores.keys.create(key, audit('aud_1'));
  const rotated = { next: { prefix: 'rk_2', hash: 'b' }, previousUntil: 9 };
  await stores.keys.rotate('key_1', rotated, audit('aud_2'));
  expect(stores.keys.all()).toMatchObject([{ prefix: 'rk_2', previous: { prefix: 'rk_1' } }]);
  expect(stores.audit.list().items.map(({ id }) => id)).toEqual(['aud_2', 'aud_1']);
});

test('a row that cannot be written leaves no key, and no other secret', async () => {
  await stores.keys.create(key);
  db.sqlite.exec('DROP TABLE audit_log');
  const second = { ...key, id: 'key_2', prefix: 'rk_3', hash: 'c' };
  await expect(stores.keys.create(second, audit('aud_1'))).rejects.toThrow();
  const rotated = { next: { prefix: 'rk_2', hash: 'b' }, previousUntil: 9 };
  await expect(stores.keys.rotate('key_1', rotated, audit('aud_2'))).rejects.toThrow();
  expect(stores.keys.all()).toEqual([key]);
});
