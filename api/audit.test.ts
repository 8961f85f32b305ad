/** What of a request the audit log keeps: no secrets, few characters; and how many rows. */
import { expect, test } from 'vitest';
import type { AuditRecord } from '../core/key-records.ts';
import { LIMITS } from '../core/limits.ts';
import { openDatabase } from '../db/open.ts';
import { openStores } from '../db/stores.ts';
import { auditedRequest } from './audit.ts';

const of = (body: unknown): unknown => auditedRequest({ path: {}, query: {}, body }).body;

test('names and values that are no secrets stay', () => {
  const body = {
    name: 'shop',
    scopes: ['agent'],
    tokens_per_day: 5,
    max_tokens: 3,
    deep: { a: null },
  };
  expect(auditedRequest({ path: { key_id: 'key_1' }, query: { limit: 1 }, body })).toEqual({
    path: { key_id: 'key_1' },
    query: { limit: 1 },
    body,
  });
  expect(auditedRequest({ path: {}, query: {}, body: undefined })).toEqual({});
});

test.each([
  { secret: 'x-1' },
  { client_secret: 'x-1' },
  { deep: { apiKey: 'x-1', api_key: 'x-1', access_token: 'x-1', Password: 'x-1' } },
  { list: [{ Authorization: 'x-1' }] },
  { headers: { 'X-Custom': 'x-1' }, env: { ANY: 'x-1' } },
  { a: { b: { c: { d: { e: { f: 'x-1' } } } } } },
])('secrets do not: %j', (body) => {
  expect(JSON.stringify(of(body))).not.toContain('x-1');
});

test('long texts, lists and bodies are cut', () => {
  expect(of({ text: 'a'.repeat(500) })).toEqual({
    text: `${'a'.repeat(LIMITS.auditTextCharsMax)}… (500 characters)`,
  });
  expect(
    (of({ list: Array.from({ length: 50 }, (_, i) => i) }) as { list: unknown[] }).list,
  ).toEqual([...Array.from({ length: 20 }, (_, i) => i), '(50 items)']);
  expect(of('line\n'.repeat(9))).toEqual({ characters: 45 });
  const wide = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`f${i}`, 'a'.repeat(199)]));
  const kept = auditedRequest({ path: { id: 1 }, query: {}, body: wide });
  expect(kept).toMatchObject({ path: { id: 1 }, fields: Object.keys(wide) });
  expect(JSON.stringify(kept).length).toBeLessThan(LIMITS.auditRequestCharsMax);
});

test('the newest rows are kept', async () => {
  const stores = openStores(openDatabase(':memory:'));
  const row = (i: number): AuditRecord => ({
    ...{ id: `aud_${i}`, keyId: null, tenant: 'default', operation: 'x', method: 'POST' },
    ...{ path: '/', status: 200, request: {}, requestId: 'req', createdAt: i },
  });
  for (let i = 0; i < 9; i++) await stores.audit.add(row(i), 4);
  expect(stores.audit.list().items).toEqual([row(8), row(7), row(6), row(5)]);
  stores.close();
});
