/** The shipped tasks: reproducible, disjoint between splits, right, and solvable by the tools. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../core/paths.ts';
import { Prng } from '../../core/prng.ts';
import type { Task, TaskSplit } from '../../core/records.ts';
import { openSearchIndex } from '../../db/search-index.ts';
import { DEFAULT_MISTAKES, scaleMistakes, traceAnySplit } from '../policy/traces.ts';
import { loadCountries } from '../corpus/countries.ts';
import { toJsonLines } from '../corpus/documents.ts';
import { buildFacts } from '../corpus/facts.ts';
import { evaluateArithmetic } from './arithmetic.ts';
import { chainKey, chainOf } from './plan.ts';
import { splitOf } from './split.ts';
import {
  buildTasks,
  FAMILY_NAMES,
  freshTrainTask,
  taskFamilies,
  TASKS_PER_FAMILY,
} from './tasks.ts';

const facts = buildFacts(loadCountries());
const splits = ['train', 'gate', 'test'] as const;
const text = (path: string): string => readFileSync(join(packageRoot, 'corpus', path), 'utf8');
const read = (split: TaskSplit): Task[] =>
  text(`tasks/${split}.jsonl`)
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Task);
const tasks = { train: read('train'), gate: read('gate'), test: read('test') };
const all = [...tasks.train, ...tasks.gate, ...tasks.test];

/** What must not be shared: entity chain, or template and numbers read off the question itself. */
function keyOf(task: Task): string {
  if (task.family !== 'math') return chainKey(chainOf(task));
  return `${task.metadata['template']} | ${(task.question.match(/\d+/g) ?? []).join(' ')}`;
}

describe('task files', () => {
  it('are committed byte by byte as the builder writes them', () => {
    const built = buildTasks(facts);
    for (const split of splits) {
      expect(toJsonLines(built[split]) === text(`tasks/${split}.jsonl`)).toBe(true);
    }
  });

  it('have the promised number of tasks a family, with unique ids and the right split', () => {
    for (const split of splits) {
      for (const family of FAMILY_NAMES) {
        const count = tasks[split].filter((task) => task.family === family).length;
        expect(count).toBe(TASKS_PER_FAMILY[split]);
      }
      expect(tasks[split].every((task) => task.split === split)).toBe(true);
    }
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
  });

  it('share no question and no chain between splits, and repeat no question within one', () => {
    expect(new Set(all.map(({ question }) => question)).size).toBe(all.length);
    const keys = splits.map((split) => new Set(tasks[split].map(keyOf)));
    const [train, gate, test] = keys as [Set<string>, Set<string>, Set<string>];
    for (const key of gate) expect(train.has(key) || test.has(key)).toBe(false);
    for (const key of test) expect(train.has(key)).toBe(false);
    expect(gate.size).toBe(tasks.gate.length);
    expect(test.size).toBe(tasks.test.length);
  });

  it('have fresh training questions that stay away from what is held out', () => {
    const families = taskFamilies(facts);
    const held = new Set([...tasks.gate, ...tasks.test].flatMap((t) => [t.question, keyOf(t)]));
    for (const name of FAMILY_NAMES) {
      const prng = new Prng(5);
      for (let i = 0; i < 1000; i++) {
        const task = freshTrainTask(families, name, prng);
        expect(task.split).toBe('train');
        expect(splitOf(keyOf(task))).toBe('train');
        expect(held.has(task.question) || held.has(keyOf(task))).toBe(false);
      }
    }
  });
});

describe('truths', () => {
  it('of search tasks follow from the sentences of the documents alone', () => {
    const stated = sentences();
    for (const task of all.filter(({ family }) => family !== 'math')) {
      expect({ id: task.id, truths: task.truths }).toEqual({
        id: task.id,
        truths: [answerFromQuestion(task.question, stated)],
      });
    }
  });

  it('of math tasks are whole, positive, and what the expression gives', () => {
    for (const task of all.filter(({ family }) => family === 'math')) {
      const expression = String(task.metadata['expression']);
      expect(task.truths).toEqual([evaluateArithmetic(expression)]);
      expect(task.truths[0]).toMatch(/^[1-9]\d*$/);
      const operations = expression.match(/[-+*/]/g)?.length ?? 0;
      expect(operations).toBe(task.metadata['operations']);
      expect(operations).toBeGreaterThanOrEqual(2);
      expect(operations).toBeLessThanOrEqual(4);
      const numbers = (of: string): string[] => of.match(/\d+/g) ?? [];
      expect(numbers(expression)).toEqual(numbers(task.question));
    }
  });

  it('are reached by the ideal searches through the real index', () => {
    const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
    // The same queries come up again and again; each is searched once.
    const known = new Map<string, string>();
    const search = (query: string): string => {
      const result =
        known.get(query) ??
        index
          .search(query, 2)
          .map((hit) => hit.text)
          .join('\n');
      known.set(query, result);
      return result;
    };
    const ideal = scaleMistakes(DEFAULT_MISTAKES, 0);
    const tools = { search, evaluate: evaluateArithmetic, facts };
    const wrong = all.filter((task) => !traceAnySplit(task, new Prng(1), tools, ideal).right);
    index.close();
    expect(wrong.map(({ id }) => id)).toEqual([]);
  });
});

/** Subject phrase -> value, read from `The PHRASE is VALUE.`; knows nothing of the fact tables. */
function sentences(): Map<string, string> {
  const stated = new Map<string, string>();
  for (const line of text('documents.jsonl').trimEnd().split('\n')) {
    const { title, text: sentence } = JSON.parse(line) as { title: string; text: string };
    const start = `The ${title} is `;
    if (!sentence.startsWith(start)) continue;
    stated.set(title, sentence.slice(start.length, -1).replace(/ square kilometres$/, ''));
  }
  return stated;
}

/** Answers a question from its words: an independent reading, from the inside out. */
function answerFromQuestion(question: string, stated: ReadonlyMap<string, string>): string {
  const asked = question.replace(/^(What is|Name|Find|Tell me) /, '').replace(/[?.]$/, '');
  const resolve = (phrase: string): string => {
    const inner = /^the (country with capital|number of neighbours of|.+? of) (.+)$/.exec(phrase);
    if (inner === null) return phrase;
    const [, relation, rest] = inner;
    const value = stated.get(`${relation} ${resolve(rest ?? '')}`);
    if (value === undefined) throw new Error(`no sentence for: ${phrase}`);
    return value;
  };
  const combined = /^the (sum|difference) of the (area|number of neighbours) of (.+)$/.exec(asked);
  if (combined === null) return resolve(asked);
  const [, kind, measure, rest = ''] = combined;
  const its = new RegExp(`^(.+) and the ${measure} of its (.+)$`).exec(rest);
  const fork = new RegExp(`^(.+) and the ${measure} of (the .+? of (.+))$`).exec(rest);
  const pair = its
    ? [its[1] ?? '', `the ${its[2]} of ${resolve(its[1] ?? '')}`]
    : [`${fork?.[1]} of ${fork?.[3]}`, fork?.[2] ?? ''];
  const [a, b] = pair.map((entity) => Number(resolve(`the ${measure} of ${entity}`)));
  if (a === undefined || b === undefined) throw new Error(`not a pair: ${question}`);
  return String(kind === 'sum' ? a + b : Math.abs(a - b));
}
