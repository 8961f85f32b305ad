/**
 * All task families together: the committed splits, and endless fresh training questions. Both use
 * the same generators and the same hash (split.ts), so a fresh training question never repeats a
 * held-out chain.
 */
import { must } from '../../core/assert.ts';
import { Prng } from '../../core/prng.ts';
import type { Task, TaskSplit } from '../../core/records.ts';
import type { Facts } from '../corpus/facts.ts';
import { deepSearchFamily } from './deep-search.ts';
import type { Draft, Family } from './family.ts';
import { knowledgeFamily } from './knowledge.ts';
import { mathFamily } from './math.ts';
import { keyHash, splitOf } from './split.ts';

export const TASKS_PER_FAMILY: Record<TaskSplit, number> = { train: 2000, gate: 200, test: 200 };

/** The seed of the committed files; another one gives other questions of the same kind. */
export const TASKS_SEED = 20250719;

export type FamilyName = Family['name'];

export const FAMILY_NAMES: readonly FamilyName[] = ['math', 'knowledge', 'deep-search'];

export function taskFamilies(facts: Facts): Map<FamilyName, Family> {
  const families = [mathFamily, knowledgeFamily(facts), deepSearchFamily(facts)];
  return new Map(families.map((family) => [family.name, family]));
}

/** The committed tasks by split, family after family. Deterministic in facts and seed. */
export function buildTasks(facts: Facts, seed = TASKS_SEED): Record<TaskSplit, Task[]> {
  const families = taskFamilies(facts);
  const out: Record<TaskSplit, Task[]> = { train: [], gate: [], test: [] };
  FAMILY_NAMES.forEach((name, index) => {
    const family = must(families.get(name), `no family ${name}`);
    const drawn = drawSplits(family, new Prng(seed + index));
    for (const split of ['train', 'gate', 'test'] as const) out[split].push(...drawn[split]);
  });
  return out;
}

/** Fills all three splits of one family; a held-out chain is used once, in one wording. */
function drawSplits(family: Family, prng: Prng): Record<TaskSplit, Task[]> {
  const out: Record<TaskSplit, Task[]> = { train: [], gate: [], test: [] };
  const seen = new Set<string>();
  const isOpen = (split: TaskSplit): boolean => out[split].length < TASKS_PER_FAMILY[split];
  while (isOpen('train') || isOpen('gate') || isOpen('test')) {
    const draft = family.draw(prng);
    const split = splitOf(draft.key);
    const identity = split === 'train' ? draft.question : draft.key;
    if (!isOpen(split) || seen.has(identity)) continue;
    seen.add(identity);
    const number = String(out[split].length + 1).padStart(4, '0');
    out[split].push(toTask(draft, family.name, split, number));
  }
  return out;
}

/**
 * A source of training questions of one family without end (questions may repeat after a while).
 * Never yields a chain, or a template with numbers, that belongs to the gate or the test.
 */
export function freshTrainTask(
  families: ReadonlyMap<FamilyName, Family>,
  name: FamilyName,
  prng: Prng,
): Task {
  const family = must(families.get(name), `no family ${name}`);
  for (;;) {
    const draft = family.draw(prng);
    if (splitOf(draft.key) !== 'train') continue;
    const suffix = keyHash(draft.question).toString(16).padStart(8, '0');
    return toTask(draft, name, 'train', `fresh_${suffix}`);
  }
}

function toTask(draft: Draft, family: FamilyName, split: TaskSplit, suffix: string): Task {
  const { question, truths, verifier, tools, metadata } = draft;
  const id = `task_${family.replace('-', '_')}_${split}_${suffix}`;
  return { id, family, split, question, truths, verifier, tools, metadata };
}
