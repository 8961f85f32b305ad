/** Tasks: an import is whole or nothing, and lists filter and page by id. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LIMITS } from '../core/limits.ts';
import type { Task } from '../core/records.ts';
import type { Database } from './open.ts';
import { openDatabase } from './open.ts';
import { TaskStore } from './task-store.ts';

let db: Database;
let store: TaskStore;

beforeEach(() => {
  db = openDatabase(':memory:');
  store = new TaskStore(db);
});
afterEach(() => {
  db.close();
});

function task(id: string, fields: Partial<Task> = {}): Task {
  return {
    id,
    family: 'knowledge',
    split: 'train',
    question: 'What is the capital of Chad?',
    truths: ['N\u2019Djamena', "N'Djamena"],
    verifier: 'qa-f1',
    tools: ['search'],
    metadata: { hops: 1, chain: 'chad/capital' },
    ...fields,
  };
}

describe('TaskStore', () => {
  test('every field comes back; a known id is replaced', async () => {
    const tasks = [task('task_a'), task('task_b', { family: 'math', verifier: 'math', tools: [] })];
    expect(store.import(tasks)).toEqual({ created: 2, replaced: 0 });
    expect(await store.select({})).toEqual(tasks);
    const changed = task('task_a', { split: 'gate', question: 'Other?' });
    expect(store.import([changed, task('task_c')])).toEqual({ created: 1, replaced: 1 });
    expect(store.find('task_a')).toEqual(changed);
    expect(store.find('task_z')).toBeNull();
  });

  test('a bad row in the middle stores nothing', () => {
    const broken = { ...task('task_b'), question: null } as unknown as Task;
    expect(() => store.import([task('task_a'), broken, task('task_c')])).toThrow(/NOT NULL/);
    expect(store.count()).toBe(0);
    const tooMany = Array.from({ length: LIMITS.tasksPerImportMax + 1 }, () => task('task_a'));
    expect(() => store.import(tooMany)).toThrow(expect.objectContaining({ code: 'task_invalid' }));
  });

  test('many are read in pieces: all of them once, in order, or as many as wanted', async () => {
    const piece = LIMITS.taskRowsPerRead;
    const tasks = Array.from({ length: 2 * piece }, (_, i) =>
      task(`task_${String(i).padStart(5, '0')}`),
    );
    store.import(tasks);
    expect(await store.select({})).toEqual(tasks);
    for (const limit of [piece - 1, piece, piece + 1, 3 * piece]) {
      expect(await store.select({}, limit)).toEqual(tasks.slice(0, limit));
    }
    expect(await store.select({}, 0)).toEqual([]);
  });

  test('filters, pages and counts agree', async () => {
    const splits = ['train', 'gate', 'test'] as const;
    const tasks = Array.from({ length: 30 }, (_, i) =>
      task(`task_${String(i).padStart(2, '0')}`, {
        family: i % 2 === 0 ? 'math' : 'knowledge',
        split: splits[i % 3],
      }),
    );
    store.import(tasks);
    for (const family of [undefined, 'math', 'none']) {
      for (const split of [undefined, ...splits]) {
        const expected = tasks.filter(
          (one) => (family ?? one.family) === one.family && (split ?? one.split) === one.split,
        );
        const filter = { family, split };
        expect(store.count(filter)).toBe(expected.length);
        expect(await store.select(filter)).toEqual(expected);
        expect(await store.select(filter, 3)).toEqual(expected.slice(0, 3));
        const paged: Task[] = [];
        let cursor: string | undefined;
        do {
          const page = store.list(filter, { limit: 4, cursor });
          paged.push(...page.items);
          expect(paged.length).toBeLessThan(1_000);
          cursor = page.nextCursor ?? undefined;
        } while (cursor !== undefined);
        expect(paged).toEqual(expected);
      }
    }
  });

  test('deleting says whether there was one', () => {
    store.import([task('task_a')]);
    expect(store.delete('task_a')).toBe(true);
    expect(store.delete('task_a')).toBe(false);
    expect(store.count()).toBe(0);
  });
});
