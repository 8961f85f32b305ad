/**
 * Traces of knowledge and deep-search tasks: one search a hop, each for the entity that the last
 * result named, then perhaps a sum of two results. A thought names how many searches are left and
 * what is looked for next, which is all the state that a chain needs.
 */
import { must } from '../../core/assert.ts';
import type { Prng } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';
import { relationPhrase } from '../corpus/documents.ts';
import { RELATIONS } from '../corpus/facts.ts';
import type { Relation } from '../corpus/facts.ts';
import { chainOf, planOf } from '../tasks/plan.ts';
import type { Plan } from '../tasks/plan.ts';
import { answerStep, javascriptStep, searchStep, toolStep } from './trace-text.ts';
import type { MistakeRates, TraceStep, TraceTools } from './traces.ts';

/** Relations easily taken for one another. A city's country has no such neighbour. */
const CONFUSED_WITH: Partial<Record<Relation, readonly Relation[]>> = {
  capital: ['currency', 'largest neighbour'],
  currency: ['official language', 'capital'],
  'official language': ['currency', 'subregion'],
  subregion: ['official language', 'capital'],
  'largest neighbour': ['smallest neighbour'],
  'smallest neighbour': ['largest neighbour'],
  area: ['number of neighbours'],
  'number of neighbours': ['area'],
};

export function searchSteps(
  task: Task,
  prng: Prng,
  tools: TraceTools,
  mistakes: MistakeRates,
): { steps: TraceStep[]; answer: string } {
  return new Searcher(planOf(chainOf(task)), prng, tools, mistakes).run();
}

/** Walks one plan, with mistakes; what it believes so far is kept by call. */
class Searcher {
  private readonly steps: TraceStep[] = [];
  private readonly believed: string[] = [];
  /** The last result as read by line, for answers taken from the wrong place. */
  private lastLines: string[] = [];
  private readonly plan: Plan;
  private readonly prng: Prng;
  private readonly tools: TraceTools;
  private readonly mistakes: MistakeRates;

  constructor(plan: Plan, prng: Prng, tools: TraceTools, mistakes: MistakeRates) {
    this.plan = plan;
    this.prng = prng;
    this.tools = tools;
    this.mistakes = mistakes;
  }

  run(): { steps: TraceStep[]; answer: string } {
    const { calls, combine } = this.plan;
    for (let i = 0; i < calls.length; i++) {
      const isInner = calls.some((call) => call.source === i);
      if (isInner && this.errs('skip')) {
        this.believed.push(this.subject(i));
        continue;
      }
      if (this.errs('guess')) return this.finish('guess', this.guess(i));
      this.search(i, isInner);
    }
    if (combine !== null) return this.combine(combine);
    const found = must(this.believed.at(-1), 'a plan has calls');
    return this.finish(
      'done',
      this.errs('answer') ? this.otherThan(found, calls.length - 1) : found,
    );
  }

  private errs(kind: keyof MistakeRates): boolean {
    return this.prng.next() < this.mistakes[kind];
  }

  private subject(call: number): string {
    const source = must(this.plan.calls[call], 'a call of the plan').source;
    return source < 0 ? this.plan.start : must(this.believed[source], 'an earlier result');
  }

  private search(call: number, isInner: boolean): void {
    const { calls } = this.plan;
    const { relation: planned } = must(calls[call], 'a call of the plan');
    const confused = CONFUSED_WITH[planned];
    const relation =
      this.errs('relation') && confused !== undefined ? this.prng.pick(confused) : planned;
    const query = relationPhrase(relation, this.subject(call));
    const result = this.tools.search(query);
    this.steps.push(searchStep(`${calls.length - call} left: ${relation}`, query));
    this.steps.push(toolStep(result));
    this.lastLines = result.split('\n').flatMap((line) => valueOf(line) ?? []);
    const found = this.lastLines[0] ?? this.subject(call);
    const misread = isInner && this.errs('entity');
    this.believed.push(misread ? this.otherThan(found, call) : found);
  }

  /** Another value that was in sight: the one of the second line, else what was asked about. */
  private otherThan(found: string, call: number): string {
    return this.lastLines.find((value) => value !== found) ?? this.subject(call);
  }

  /** An answer without the search: where the chain stands, or a random value of the right kind. */
  private guess(call: number): string {
    if (call > 0 && this.plan.combine === null && this.prng.next() < 0.5) return this.subject(call);
    const last = must(this.plan.calls.at(-1), 'a plan has calls').relation;
    return this.prng.pick(this.tools.facts.values(last));
  }

  private combine(combine: NonNullable<Plan['combine']>): { steps: TraceStep[]; answer: string } {
    const left = this.number(combine.left);
    const right = this.number(combine.right);
    const kinds = ['sum', 'difference'] as const;
    const other = combine.kind === 'sum' ? kinds[1] : kinds[0];
    const kind = this.errs('combination') ? other : combine.kind;
    const wrong = this.errs('operand');
    if (wrong && this.prng.next() < 0.5) return this.finish('done', right);
    // The other half of the mistakes takes one number twice.
    const first = wrong ? right : left;
    const expression = kind === 'sum' ? `${first}+${right}` : `Math.abs(${first}-${right})`;
    const result = this.tools.evaluate(expression);
    this.steps.push(javascriptStep(kind === 'sum' ? 'now add' : 'now subtract', expression));
    this.steps.push(toolStep(result));
    return this.finish('done', result);
  }

  /** The result of a call as a number; a wrong turn may have found a word: then 0 stands in. */
  private number(call: number): string {
    const { relation } = must(this.plan.calls[call], 'a call of the plan');
    const value = must(this.believed[call], 'an earlier result');
    return RELATIONS[relation].to === 'number' && /^\d+$/.test(value) ? value : '0';
  }

  private finish(thought: string, answer: string): { steps: TraceStep[]; answer: string } {
    this.steps.push(answerStep(thought, answer));
    return { steps: this.steps, answer };
  }
}

/** The value that a line of a result states; undefined for a line of another form. */
export function valueOf(line: string): string | undefined {
  const sentence = /^The .+? is (.+?)(?: square kilometres)?\.$/.exec(line);
  if (sentence?.[1] !== undefined) return sentence[1];
  return /^[A-Z]\w+ of [^:]+: ([^,]+?)(?:,.*)?\.$/.exec(line)?.[1];
}
