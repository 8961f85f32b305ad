/** Collections on real files: found at once, seen by other connections, copied, shipped. */
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ManualClock } from '../core/clock.ts';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { packageRoot } from '../core/paths.ts';
import { copyCollections, openCollections, readCollections } from './collection-store.ts';
import type { CollectionStore } from './collection-store.ts';
import { openSearchIndex } from './search-index.ts';

let folder: string;
let file: string;
let shipped: string;
const clock = new ManualClock();
const opened: CollectionStore[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-collections-'));
  file = join(folder, 'collections.db');
  shipped = join(folder, 'shipped.jsonl');
  writeFileSync(shipped, '{"id":"1","title":"France","text":"Paris."}\n');
});
afterEach(() => {
  for (const store of opened.splice(0)) store.close();
  rmSync(folder, { recursive: true });
});

const open = () => {
  const store = openCollections(file, shipped, clock);
  opened.push(store);
  return store;
};
const texts = (store: CollectionStore, name: string, query: string) =>
  store
    .index(name)
    .search(query, 5)
    .map(({ text }) => text);
const oak = { id: 'a', title: 'Ada', text: 'She likes oak.' };

test('added, replaced, deleted: found by the same index at once', () => {
  const store = open();
  const index = store.index('notes');
  expect(index.search('oak', 5)).toEqual([]);
  expect(store.upsert('notes', [oak])).toEqual({ created: 1, updated: 0 });
  expect(index.search('oak', 5)).toMatchObject([oak]);
  const elm = { ...oak, text: 'She likes elm.' };
  expect(store.upsert('notes', [elm, { ...oak, id: 'b' }])).toEqual({ created: 1, updated: 1 });
  expect(index.search('elm', 5)).toMatchObject([elm]);
  expect(index.search('oak', 5).map(({ id }) => id)).toEqual(['b']);
  store.deleteDocument('notes', 'b');
  expect(index.search('oak', 5)).toEqual([]);
  expect(store.get('notes').documents).toBe(1);
  store.delete('notes');
  expect(index.search('elm', 5)).toEqual([]);
  store.upsert('notes', [oak]);
  expect(index.search('oak elm', 5)).toMatchObject([oak]);
});

describe('searched in a thread', () => {
  const never = new AbortController().signal;

  test('the same is found, of what is there by then', async () => {
    const store = open();
    const index = store.slowIndex('notes');
    expect(await index.search('oak', 5, never)).toEqual([]);
    store.upsert('notes', [oak, { ...oak, id: 'b', text: 'Oak and elm.' }]);
    const found = store.index('notes').search('oak elm', 5);
    expect(found).toHaveLength(2);
    expect(await index.search('oak elm', 5, never)).toEqual(found);
    expect(await index.search('oak elm', 1, never)).toEqual(found.slice(0, 1));
    store.delete('notes');
    expect(await index.search('oak', 5, never)).toEqual([]);
  });

  test('a search under way holds nothing up and can be given up; the next ones go on', async () => {
    const store = open();
    store.upsert('notes', [oak]);
    const index = store.slowIndex('notes');
    const controller = new AbortController();
    const reason = new AppError('tool_timeout', 'late');
    const calls = [controller.signal, controller.signal, never].map((signal) =>
      index.search('oak', 5, signal),
    );
    const settled = Promise.allSettled(calls);
    // Before a search on this thread would have begun it would be over.
    setTimeout(() => controller.abort(reason), 0);
    expect(await settled).toMatchObject([
      { status: 'rejected', reason },
      { status: 'rejected', reason },
      { status: 'fulfilled', value: [oak] },
    ]);
    expect(await index.search('oak', 5, never)).toMatchObject([oak]);
  });

  test('a file that is gone fails the search, and a store that is closed too', async () => {
    const store = open();
    rmSync(file);
    const failure = { code: 'storage_failed' };
    await expect(store.slowIndex('notes').search('oak', 5, never)).rejects.toThrow();
    store.close();
    await expect(store.slowIndex('notes').search('oak', 5, never)).rejects.toMatchObject(failure);
  });
});

test('one id twice in one import is one document', () => {
  const store = open();
  const last = { ...oak, text: 'ash' };
  expect(store.upsert('notes', [oak, last])).toEqual({ created: 1, updated: 1 });
  expect(texts(store, 'notes', 'oak ash')).toEqual(['ash']);
});

test('what another connection does is found without opening again, and is told', () => {
  const [server, other] = [open(), open()];
  const before = server.version();
  other.upsert('notes', [oak]);
  expect(texts(server, 'notes', 'oak')).toEqual(['She likes oak.']);
  expect(server.version()).not.toBe(before);
  other.delete('notes');
  expect(texts(server, 'notes', 'oak')).toEqual([]);
  const reader = readCollections(file, clock)!;
  opened.push(reader);
  other.upsert('notes', [oak]);
  expect(texts(reader, 'notes', 'oak')).toEqual(['She likes oak.']);
  expect(() => reader.upsert('notes', [oak])).toThrow('readonly');
});

test('a copy is what there was at its moment', async () => {
  const store = open();
  store.upsert('notes', [oak]);
  const copy = join(folder, 'copy.db');
  await copyCollections(file, copy);
  store.upsert('notes', [{ ...oak, text: 'later' }]);
  const reader = readCollections(copy, clock)!;
  opened.push(reader);
  expect(texts(reader, 'notes', 'oak later')).toEqual(['She likes oak.']);
  expect(readCollections(join(folder, 'none.db'), clock)).toBeNull();
});

test('the shipped documents are there once, and those of a newer ramify are added', () => {
  open().upsert('corpus', [{ id: 'own', title: '', text: 'mine' }]);
  expect(open().get('corpus').documents).toBe(2);
  appendFileSync(shipped, '{"id":"2","title":"Spain","text":"Madrid."}\n');
  const store = open();
  expect(store.get('corpus').documents).toBe(3);
  expect(texts(store, 'corpus', 'spain mine')).toHaveLength(2);
  // One that was deleted does not come back with every start.
  store.deleteDocument('corpus', '1');
  expect(open().get('corpus').documents).toBe(2);
  expect(() => store.delete('corpus')).toThrow('the default collection stays');
});

test('the shipped corpus is searched as it is in memory', () => {
  const path = join(packageRoot, 'corpus', 'documents.jsonl');
  const store = openCollections(join(folder, 'real.db'), path, clock);
  opened.push(store);
  const memory = openSearchIndex(path);
  for (const query of ['capital of France', 'neighbours of Chad', 'euro', 'Guinea area']) {
    expect(store.index('corpus').search(query, 10)).toEqual(memory.search(query, 10));
  }
  memory.close();
});

test('of a long text the best piece', () => {
  const store = open();
  const filler = 'nothing much '.repeat(LIMITS.searchTextCharsMax / 10);
  store.upsert('notes', [{ id: 'l', title: '', text: `${filler} the oak is old ${filler}` }]);
  const [text = ''] = texts(store, 'notes', 'oak');
  expect(text).toContain('the oak is old');
  expect(text.length).toBeLessThan(1_000);
});

test('more collections than may be are refused', () => {
  const store = open();
  for (let i = 1; i < LIMITS.collectionsMax; i++) store.upsert(`c${i}`, []);
  expect(() => store.upsert('more', [])).toThrow(`there are ${LIMITS.collectionsMax} collections`);
  store.upsert('c1', [oak]);
});

test.each([
  ['is no database', () => writeFileSync(file, 'x'.repeat(4096)), 'not a database'],
  [
    'is of a newer version',
    () => {
      const database = new BetterSqlite3(file);
      database.pragma('user_version = 99');
      database.close();
    },
    'newer version of ramify',
  ],
])('a file that %s is refused', (_, make, message) => {
  make();
  for (const attempt of [open, () => readCollections(file, clock)]) {
    expect(attempt).toThrow(
      expect.objectContaining({
        code: 'storage_failed',
        message: expect.stringContaining(message),
      }),
    );
  }
});
