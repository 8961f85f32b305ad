/** Kept answers: replaced, too old, and the oldest gone when a tenant's room is full. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LIMITS } from '../core/limits.ts';
import type { KeptAnswer } from './answer-store.ts';
import { openDatabase } from './open.ts';
import { openStores } from './stores.ts';
import type { Stores } from './stores.ts';

let stores: Stores;
beforeEach(() => (stores = openStores(openDatabase(':memory:'))));
afterEach(() => stores.close());

const answer = (fields: Partial<KeptAnswer>): KeptAnswer => ({
  tenant: 'a',
  key: 'k',
  digest: 'd',
  status: 202,
  headers: { 'content-type': 'application/json' },
  body: Buffer.from('{"é":1}'),
  createdAt: 1_000,
  ...fields,
});
const find = (tenant: string, key: string, since = 0) =>
  stores.answers.find({ tenant, key }, since);

test('an answer comes back byte for byte, to its tenant alone', async () => {
  await stores.answers.keep(answer({}));
  expect(find('a', 'k')).toEqual(answer({}));
  expect(find('b', 'k')).toBeNull();
  expect(find('a', 'other')).toBeNull();
});

test('an answer that is too old is no answer, and a new one takes its place', async () => {
  await stores.answers.keep(answer({}));
  expect(find('a', 'k', 1_000)).toBeNull();
  await stores.answers.keep(answer({ digest: 'e', createdAt: 2_000 }));
  expect(find('a', 'k', 1_000)?.digest).toBe('e');
});

test('old answers are deleted when another is kept, those of other tenants are not', async () => {
  await stores.answers.keep(answer({ key: 'old' }));
  await stores.answers.keep(answer({ key: 'old', tenant: 'b' }));
  await stores.answers.keep(answer({ createdAt: 1_000 + LIMITS.idempotencyKeptMs }));
  expect([find('a', 'old'), find('b', 'old')?.key, find('a', 'k')?.key]).toEqual([
    null,
    'old',
    'k',
  ]);
});

test('a full room loses its oldest answers', async () => {
  const body = Buffer.alloc(LIMITS.keptAnswerBytesMax);
  const count = Math.ceil(LIMITS.keptAnswersBytesMax / body.byteLength) + 1;
  for (let i = 0; i < count; i++) {
    await stores.answers.keep(answer({ key: String(i), body, createdAt: 1_000 + i }));
  }
  const kept = Array.from({ length: count }, (_, i) => find('a', String(i)) !== null);
  // The rows themselves count too, so one less has room than the bodies alone would say.
  expect(kept).toEqual(kept.map((_, i) => i >= 2));
});
