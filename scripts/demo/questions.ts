/**
 * Which held-out questions are asked: a seeded choice, spread evenly over the families. None of
 * them is in the training split, nor among the tasks of the gate.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AppError } from '../../core/errors.ts';
import { packageRoot } from '../../core/paths.ts';
import { Prng } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';

export function readTestTasks(): Task[] {
  return readTasks('test');
}

export function readTasks(split: Task['split']): Task[] {
  const text = readFileSync(join(packageRoot, 'corpus', 'tasks', `${split}.jsonl`), 'utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Task);
}

export interface Choice {
  /** Asked before and after, grouped by family. */
  questions: Task[];
  /** The others, shuffled: asked while training goes on. */
  rest: Task[];
}

/** @throws AppError config_invalid when a family has too few tasks. */
export function chooseQuestions(tasks: readonly Task[], count: number, seed: number): Choice {
  const families = [...new Set(tasks.map(({ family }) => family))].sort();
  const prng = new Prng(seed);
  const questions: Task[] = [];
  const rest: Task[] = [];
  families.forEach((family, i) => {
    // Families that come first take one more when the count does not divide.
    const share = Math.floor((count + families.length - 1 - i) / families.length);
    const members = prng.shuffle(tasks.filter((task) => task.family === family));
    if (members.length < share) {
      throw new AppError(
        'config_invalid',
        `--questions ${count}: family ${family} has only ${members.length} held-out tasks`,
      );
    }
    questions.push(...members.slice(0, share));
    rest.push(...members.slice(share));
  });
  return { questions, rest: prng.shuffle(rest) };
}
