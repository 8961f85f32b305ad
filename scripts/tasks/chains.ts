/**
 * Draws random chains over the facts. A chain never visits an entity twice (else the question has a
 * short cut) and always has an answer. Used by the knowledge and the deep-search family.
 */
import { must } from '../../core/assert.ts';
import { AppError } from '../../core/errors.ts';
import type { Prng } from '../../core/prng.ts';
import type { Facts, Relation } from '../corpus/facts.ts';
import type { Chain, Combination, Shape } from './plan.ts';
import { planOf, walk } from './plan.ts';

const STEPS: readonly Relation[] = ['largest neighbour', 'smallest neighbour'];

/** What may stand at the end of a path. */
const ENDS: readonly Relation[] = [
  'capital',
  'currency',
  'official language',
  'subregion',
  'area',
  'number of neighbours',
  'largest neighbour',
  'smallest neighbour',
];

const MEASURES = ['area', 'number of neighbours'] as const;
const COMBINATIONS: readonly Combination[] = ['sum', 'difference'];

/** A try fails when a random chain breaks off or loops; about half of them do. */
const TRIES_MAX = 10_000;

/** A path of `hops` relations that starts at a capital in `cityShare` of the draws. */
export function drawPath(facts: Facts, prng: Prng, hops: number, cityShare = 0.4): Chain {
  return drawUntilWhole(facts, () => {
    const fromCity = prng.next() < cityShare;
    const relations: Relation[] = [];
    if (fromCity) relations.push('country with capital');
    while (relations.length < hops - 1) relations.push(prng.pick(STEPS));
    if (relations.length < hops) relations.push(prng.pick(ENDS));
    const start = drawStart(facts, prng, must(relations[0], 'a path has a relation'));
    return { shape: 'path', start, relations, combination: 'none', measure: null };
  });
}

/** A pair with three or four searches, or a fork (always four). */
export function drawCombined(facts: Facts, prng: Prng, shape: 'pair3' | 'pair4' | 'fork'): Chain {
  return drawUntilWhole(facts, () => {
    const relations: Relation[] = shape === 'fork' ? [...STEPS] : [prng.pick(STEPS)];
    if (shape === 'pair4') relations.unshift('country with capital');
    const kind: Shape = shape === 'fork' ? 'fork' : 'pair';
    const start = drawStart(facts, prng, must(relations[0], 'a chain has a relation'));
    const combination = prng.pick(COMBINATIONS);
    return { shape: kind, start, relations, combination, measure: prng.pick(MEASURES) };
  });
}

function drawStart(facts: Facts, prng: Prng, relation: Relation): string {
  return prng.pick(facts.subjects(relation));
}

function drawUntilWhole(facts: Facts, draw: () => Chain): Chain {
  for (let i = 0; i < TRIES_MAX; i++) {
    const chain = draw();
    if (isWhole(chain, facts)) return chain;
  }
  throw new AppError('internal', `internal: no chain found in ${TRIES_MAX} draws`);
}

function isWhole(chain: Chain, facts: Facts): boolean {
  // Three equal relations in a row ask the policy to count words, not to search.
  const { relations } = chain;
  if (
    relations.some((relation, i) => relation === relations[i + 1] && relation === relations[i + 2])
  )
    return false;
  const plan = planOf(chain);
  const walked = walk(plan, facts);
  if (walked === null) return false;
  // A difference of 0 is found by no search at all.
  if (chain.combination === 'difference' && walked.answer === '0') return false;
  const entities = plan.calls.flatMap(({ relation }, i) =>
    relation === 'area' || relation === 'number of neighbours' ? [] : [walked.results[i]],
  );
  return new Set([plan.start, ...entities]).size === entities.length + 1;
}
