/**
 * Cold-start traces: how a policy with tools would answer a training task, with deliberate mistakes
 * (the paper cold-starts before RL; a teacher without faults would leave RL nothing to learn). Each
 * single decision is right more often than any one wrong way, so RL has something to sharpen.
 *
 * Tool results are what the real tools return for the query as it was written, mistakes included.
 * Knows the tag protocol's policy text, not tokens: the policy builder encodes it.
 */
import { AppError } from '../../core/errors.ts';
import type { Prng } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';
import type { Facts } from '../corpus/facts.ts';
import { mathSteps } from './math-trace.ts';
import { searchSteps } from './search-trace.ts';

export interface TraceTools {
  /** The search tool: the texts of the best hits, one a line. */
  search(query: string): string;
  /** The javascript tool on an arithmetic expression: the number as text. */
  evaluate(expression: string): string;
  /** Plausible values for guessed answers. */
  facts: Facts;
}

export interface TraceStep {
  kind: 'policy' | 'tool';
  /** policy: without the end token; tool: the bare result, without tags. */
  text: string;
}

export interface Trace {
  question: string;
  steps: TraceStep[];
  /** What stands in the box of the last step. */
  answer: string;
  right: boolean;
}

/** Probability of each kind of mistake at each place where it can happen. */
export interface MistakeRates {
  /** A search for another relation than the next one. */
  relation: number;
  /** A search in the middle of a chain is left out. */
  skip: number;
  /** An entity is read from the wrong line of a result. */
  entity: number;
  /** No further search: the answer is guessed, or is where the chain stands. */
  guess: number;
  /** After the last result: the answer is another value than the one found. */
  answer: number;
  /** The wrong operation at the end of a deep search. */
  combination: number;
  /** A wrong number in the final sum, or no sum at all. */
  operand: number;
  /** math: an operator is another one (drawn for each). */
  operator: number;
  /** math: an operation is left out (drawn for each). */
  term: number;
  /** math: two numbers change places. */
  order: number;
  /** math: no call, a guessed result. */
  mathGuess: number;
}

/** About 40 % of the traces end in the right answer (traces.test.ts holds the figures). */
export const DEFAULT_MISTAKES: MistakeRates = {
  relation: 0.12,
  skip: 0.15,
  entity: 0.07,
  guess: 0.1,
  answer: 0.18,
  combination: 0.15,
  operand: 0.12,
  operator: 0.14,
  term: 0.1,
  order: 0.1,
  mathGuess: 0.12,
};

/** All rates times a factor, at most 0.9: 0 gives the ideal trace. */
export function scaleMistakes(rates: MistakeRates, factor: number): MistakeRates {
  const scaled = { ...rates };
  for (const name of Object.keys(rates) as (keyof MistakeRates)[]) {
    scaled[name] = Math.min(0.9, rates[name] * factor);
  }
  return scaled;
}

/** One trace of a training task. Throws task_invalid for a held-out one. */
export function trace(
  task: Task,
  prng: Prng,
  tools: TraceTools,
  mistakes: MistakeRates = DEFAULT_MISTAKES,
): Trace {
  if (task.split !== 'train') {
    throw new AppError('task_invalid', `task ${task.id} is held out: it must not be taught`);
  }
  return traceAnySplit(task, prng, tools, mistakes);
}

/** The same for any split, to prove that held-out tasks can be solved; never for teaching. */
export function traceAnySplit(
  task: Task,
  prng: Prng,
  tools: TraceTools,
  mistakes: MistakeRates,
): Trace {
  const make = task.family === 'math' ? mathSteps : searchSteps;
  const { steps, answer } = make(task, prng, tools, mistakes);
  return { question: task.question, steps, answer, right: task.truths.includes(answer) };
}
