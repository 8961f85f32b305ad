/**
 * A question over the knowledge base as a plan: the searches that answer it, in order, and perhaps
 * one sum at the end. Tasks carry their chain as text in the metadata; this module turns it back
 * into a plan, walks the facts for the truth, and words the question.
 *
 * Shapes: `path` follows relations one after the other. `pair` ends with a number of the last two
 * entities of a path (Portugal and its largest neighbour), `fork` with a number of the largest and
 * the smallest neighbour of one country. Both then add the numbers or take their difference.
 */
import { AppError } from '../../core/errors.ts';
import { must } from '../../core/assert.ts';
import { relationPhrase } from '../corpus/documents.ts';
import { RELATIONS } from '../corpus/facts.ts';
import type { Task } from '../../core/records.ts';
import type { Facts, Relation } from '../corpus/facts.ts';

export type Shape = 'path' | 'pair' | 'fork';
export type Combination = 'none' | 'sum' | 'difference';

/** What defines a question, apart from its wording. */
export interface Chain {
  shape: Shape;
  start: string;
  /** path: all relations; pair: up to the second entity; fork: the two neighbour relations. */
  relations: Relation[];
  combination: Combination;
  /** The number that pair and fork combine; null for a path. */
  measure: 'area' | 'number of neighbours' | null;
}

/** One search: the relation, and which earlier result it starts from (-1: the start entity). */
export interface Call {
  relation: Relation;
  source: number;
}

export interface Plan {
  start: string;
  calls: Call[];
  /** The results combined at the end; null when the last result is the answer. */
  combine: { kind: 'sum' | 'difference'; left: number; right: number } | null;
}

/** Identity of a chain; held-out keys never occur in training. */
export function chainKey(chain: Chain): string {
  const { start, relations, combination, measure } = chain;
  const end = measure === null ? '' : ` | ${combination} of ${measure}`;
  return `${start} > ${relations.join(' > ')}${end}`;
}

/** The searches of a chain, in the order in which the question names them. */
export function planOf(chain: Chain): Plan {
  const { shape, start, relations, measure } = chain;
  const calls: Call[] = [];
  const follow = (relation: Relation, source: number): number => {
    calls.push({ relation, source });
    return calls.length - 1;
  };
  if (shape === 'path') {
    relations.forEach((relation, i) => follow(relation, i - 1));
    return { start, calls, combine: null };
  }
  const kind = chain.combination === 'difference' ? 'difference' : 'sum';
  const number = must(measure, `a ${shape} has a measure`);
  if (shape === 'fork') {
    const [first, second] = relations;
    const left = follow(number, follow(must(first, 'fork has a first relation'), -1));
    const right = follow(number, follow(must(second, 'fork has a second relation'), -1));
    return { start, calls, combine: { kind, left, right } };
  }
  let entity = -1;
  for (const relation of relations.slice(0, -1)) entity = follow(relation, entity);
  const left = follow(number, entity);
  const neighbour = follow(must(relations.at(-1), 'a pair has a relation'), entity);
  const right = follow(number, neighbour);
  return { start, calls, combine: { kind, left, right } };
}

/** The results of all calls by the facts; null when the chain breaks off. */
export function walk(plan: Plan, facts: Facts): { results: string[]; answer: string } | null {
  const results: string[] = [];
  for (const { relation, source } of plan.calls) {
    const value = facts.value(relation, source < 0 ? plan.start : (results[source] ?? ''));
    if (value === undefined) return null;
    results.push(value);
  }
  if (plan.combine === null) return { results, answer: results.at(-1) ?? '' };
  const { kind, left, right } = plan.combine;
  const [a, b] = [Number(results[left]), Number(results[right])];
  return { results, answer: String(kind === 'sum' ? a + b : Math.abs(a - b)) };
}

/** `the capital of the largest neighbour of Portugal`. */
function pathPhrase(relations: readonly Relation[], start: string): string {
  return relations.reduce((inner, relation) => `the ${relationPhrase(relation, inner)}`, start);
}

const OPENINGS = ['What is', 'Name', 'Find', 'Tell me'] as const;

/** How many wordings a chain has. */
export const WORDINGS = OPENINGS.length;

/** The question in one of its wordings (0 .. WORDINGS - 1). */
export function questionOf(chain: Chain, wording: number): string {
  const opening = must(OPENINGS[wording], `no wording ${wording}`);
  return `${opening} ${subjectOf(chain)}${opening === 'What is' ? '?' : '.'}`;
}

function subjectOf({ shape, start, relations, combination, measure }: Chain): string {
  if (shape === 'path') return pathPhrase(relations, start);
  const last = must(relations.at(-1), 'a chain has relations');
  if (shape === 'fork') {
    const [first] = relations;
    const left = `the ${measure} of the ${first}`;
    return `the ${combination} of ${left} and the ${measure} of the ${last} of ${start}`;
  }
  const entity = pathPhrase(relations.slice(0, -1), start);
  return `the ${combination} of the ${measure} of ${entity} and the ${measure} of its ${last}`;
}

/** The chain as task metadata: flat text, readable in reports. */
export function chainMetadata(chain: Chain): Task['metadata'] {
  const { shape, start, relations, combination, measure } = chain;
  const hops = planOf(chain).calls.length;
  const path = { hops, shape, start, relations: relations.join(' > ') };
  return measure === null ? path : { ...path, combination, measure };
}

/** Reads chainMetadata back. Throws task_invalid when the task has none. */
export function chainOf(task: Pick<Task, 'id' | 'metadata'>): Chain {
  const { shape, start, relations, combination, measure } = task.metadata;
  const names = typeof relations === 'string' ? relations.split(' > ') : [];
  if (
    (shape !== 'path' && shape !== 'pair' && shape !== 'fork') ||
    typeof start !== 'string' ||
    names.length === 0 ||
    !names.every((name): name is Relation => Object.hasOwn(RELATIONS, name))
  ) {
    throw new AppError('task_invalid', `task ${task.id} has no chain in its metadata`);
  }
  return {
    shape,
    start,
    relations: names,
    combination: combination === 'sum' || combination === 'difference' ? combination : 'none',
    measure: measure === 'area' || measure === 'number of neighbours' ? measure : null,
  };
}
