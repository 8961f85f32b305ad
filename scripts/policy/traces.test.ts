/** The cold-start traces: well formed, imperfect on purpose, short, and never of held-out tasks. */
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../core/paths.ts';
import { Prng } from '../../core/prng.ts';
import { openSearchIndex } from '../../db/search-index.ts';
import { loadCountries } from '../corpus/countries.ts';
import { buildFacts } from '../corpus/facts.ts';
import { evaluateArithmetic } from '../tasks/arithmetic.ts';
import { FAMILY_NAMES, freshTrainTask, taskFamilies } from '../tasks/tasks.ts';
import type { FamilyName } from '../tasks/tasks.ts';
import { valueOf } from './search-trace.ts';
import { DEFAULT_MISTAKES, scaleMistakes, trace } from './traces.ts';
import type { Trace } from './traces.ts';

const facts = buildFacts(loadCountries());
const families = taskFamilies(facts);
const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
const search = (query: string): string =>
  index
    .search(query, 2)
    .map((hit) => hit.text)
    .join('\n');
const tools = { search, evaluate: evaluateArithmetic, facts };

afterAll(() => index.close());

function sample(family: FamilyName, count: number, mistakes = DEFAULT_MISTAKES): Trace[] {
  const prng = new Prng(11);
  return Array.from({ length: count }, () =>
    trace(freshTrainTask(families, family, prng), prng, tools, mistakes),
  );
}

const share = (traces: readonly Trace[]): number =>
  traces.filter(({ right }) => right).length / traces.length;

/** Words, digits, tags and other signs, each one: a lower bound on the tokens of a small BPE. */
const signs = (text: string): number =>
  (text.match(/<\/?\w+>|[A-Za-z]+|\d|[^\sA-Za-z\d]/g) ?? []).length;

const POLICY_STEP = /^<think>[^<>]{1,60}<\/think><(search|javascript|answer)>([^<>]+)<\/\1>$/;

describe('traces', () => {
  it.each(FAMILY_NAMES)('%s: every step is well formed and carries the real result', (family) => {
    for (const { steps, answer } of sample(family, 300)) {
      steps.forEach((step, i) => {
        if (step.kind === 'tool') return;
        const [, action, body] = POLICY_STEP.exec(step.text) ?? [];
        expect(action, step.text).toBeDefined();
        if (action === 'answer') {
          expect(i).toBe(steps.length - 1);
          expect(body).toBe(`\\boxed{ ${answer}}`);
        } else {
          const result = action === 'search' ? search(body ?? '') : evaluateArithmetic(body ?? '');
          expect(steps[i + 1]).toEqual({ kind: 'tool', text: result });
        }
      });
      expect(steps.at(-1)?.text).toContain('<answer>');
    }
  });

  it('are right in about 40 % of the cases, more in short chains than in long ones', () => {
    const shares = FAMILY_NAMES.map((family) => share(sample(family, 2000)));
    const [math = 0, knowledge = 0, deep = 0] = shares;
    expect(math).toBeGreaterThan(0.35);
    expect(math).toBeLessThan(0.5);
    expect(knowledge).toBeGreaterThan(0.45);
    expect(knowledge).toBeLessThan(0.6);
    expect(deep).toBeGreaterThan(0.22);
    expect(deep).toBeLessThan(0.35);
    const mean = (math + knowledge + deep) / 3;
    expect(mean).toBeGreaterThan(0.35);
    expect(mean).toBeLessThan(0.45);
  });

  it('are always right without mistakes', () => {
    const ideal = scaleMistakes(DEFAULT_MISTAKES, 0);
    for (const family of FAMILY_NAMES) expect(share(sample(family, 500, ideal))).toBe(1);
  });

  it('stay short', () => {
    const longest: Record<FamilyName, number> = { math: 90, knowledge: 150, 'deep-search': 260 };
    for (const family of FAMILY_NAMES) {
      for (const { question, steps } of sample(family, 500)) {
        const text = [question, ...steps.map((step) => step.text)].join(' ');
        expect(signs(text) + 2 * steps.length).toBeLessThanOrEqual(longest[family]);
      }
    }
  });

  it('are the same for the same seed', () => {
    expect(sample('deep-search', 20)).toEqual(sample('deep-search', 20));
  });

  it('refuse held-out tasks', () => {
    const task = freshTrainTask(families, 'knowledge', new Prng(1));
    const heldOut = { ...task, id: 'task_x', split: 'test' as const };
    expect(() => trace(heldOut, new Prng(1), tools)).toThrow(/task_x is held out/);
  });
});

describe('valueOf', () => {
  it('reads the value of a sentence or the first of a list', () => {
    expect(valueOf('The capital of Portugal is Lisbon.')).toBe('Lisbon');
    expect(valueOf('The capital of United States is Washington D.C..')).toBe('Washington D.C.');
    expect(valueOf('The area of Portugal is 92090 square kilometres.')).toBe('92090');
    expect(valueOf('Neighbours of Spain: Andorra, France, Gibraltar.')).toBe('Andorra');
    expect(valueOf('In the United Nations, Spain is a member.')).toBeUndefined();
  });
});
