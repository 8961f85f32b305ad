/** Which tasks `eval` answers: those asked for, each once, and none silently left out. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { testTask } from '../../core/trainer/testing/test-job.ts';
import { openDatabase, type Database } from '../../db/open.ts';
import { TaskStore } from '../../db/task-store.ts';
import { chosenTasks } from './eval.ts';

let db: Database;
let store: TaskStore;
beforeEach(() => {
  db = openDatabase(':memory:');
  store = new TaskStore(db);
  store.import(
    ['math', 'math', 'knowledge'].map((family, i) =>
      testTask({ id: `task_${i}`, family, split: 'test' }),
    ),
  );
});
afterEach(() => {
  db.close();
});

const chosen = async (...families: string[]): Promise<string[]> =>
  (await chosenTasks(store, { split: 'test', families, tasksMax: Infinity })).map(({ id }) => id);

it('takes all families, or those that are named', async () => {
  expect(await chosen()).toEqual(['task_0', 'task_1', 'task_2']);
  expect(await chosen('knowledge')).toEqual(['task_2']);
  expect(await chosen('knowledge', 'math')).toEqual(['task_2', 'task_0', 'task_1']);
});

it('refuses a family without tasks, beside others too', async () => {
  const message = 'no task of split test and family maths is stored';
  for (const families of [['maths'], ['maths', 'math'], ['math', 'maths']]) {
    await expect(chosen(...families)).rejects.toMatchObject({ code: 'invalid_request', message });
  }
});
