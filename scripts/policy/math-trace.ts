/** Traces of math tasks: one expression for the javascript tool, then its value as the answer. */
import { must } from '../../core/assert.ts';
import { AppError } from '../../core/errors.ts';
import type { Prng } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';
import { expressionTokens } from '../tasks/arithmetic.ts';
import { answerStep, javascriptStep, toolStep } from './trace-text.ts';
import type { MistakeRates, TraceStep, TraceTools } from './traces.ts';

const OPERATORS = ['+', '-', '*', '/'] as const;

const WORDS: Record<string, string> = { '+': 'plus', '-': 'minus', '*': 'times', '/': 'divide' };

/** Draws of a mistaken expression that gives a whole number; after that the right one is kept. */
const TRIES_MAX = 8;

export function mathSteps(
  task: Task,
  prng: Prng,
  tools: TraceTools,
  mistakes: MistakeRates,
): { steps: TraceStep[]; answer: string } {
  const { expression } = task.metadata;
  if (typeof expression !== 'string') {
    throw new AppError('task_invalid', `task ${task.id} has no expression in its metadata`);
  }
  if (prng.next() < mistakes.mathGuess) {
    const answer = String(Number(task.truths[0]) + 1 + prng.below(20));
    return { steps: [answerStep('guess', answer)], answer };
  }
  const written = mistaken(expression, prng, tools, mistakes);
  const result = tools.evaluate(written);
  const steps = [javascriptStep(operatorWords(written), written), toolStep(result)];
  steps.push(answerStep('done', result));
  return { steps, answer: result };
}

/** `times minus`: the operations in the order in which they are written. */
function operatorWords(expression: string): string {
  return expressionTokens(expression)
    .flatMap((token) => WORDS[token] ?? [])
    .join(' ');
}

/** The expression with each mistake drawn at each of its places. */
function mistaken(
  expression: string,
  prng: Prng,
  tools: TraceTools,
  mistakes: MistakeRates,
): string {
  const right = expressionTokens(expression);
  for (let i = 0; i < TRIES_MAX; i++) {
    let tokens = changeOperators(right, prng, mistakes.operator);
    tokens = dropTerms(tokens, prng, mistakes.term);
    if (prng.next() < mistakes.order) tokens = swapNumbers(tokens, prng);
    const written = tokens.join('');
    if (written === expression || /^-?\d{1,6}$/.test(tools.evaluate(written))) return written;
  }
  return expression;
}

function changeOperators(tokens: readonly string[], prng: Prng, rate: number): string[] {
  return tokens.map((token) => {
    if (!isOperator(token) || prng.next() >= rate) return token;
    return prng.pick(OPERATORS.filter((operator) => operator !== token));
  });
}

/** Leaves out operators, each with the number after it. */
function dropTerms(tokens: readonly string[], prng: Prng, rate: number): string[] {
  const dropped = tokens.map((token) => isOperator(token) && prng.next() < rate);
  const out = tokens.filter((_, i) => !dropped[i] && !dropped[i - 1]);
  // What remains must still be something to compute.
  return out.some(isOperator) ? out : [...tokens];
}

function swapNumbers(tokens: readonly string[], prng: Prng): string[] {
  const [a, b] = prng.shuffle(positions(tokens, isNumber));
  const [i, j] = [must(a, 'an expression has numbers'), must(b, 'an expression has two numbers')];
  const out = [...tokens];
  out[i] = must(tokens[j], 'a position of the expression');
  out[j] = must(tokens[i], 'a position of the expression');
  return out;
}

function positions(tokens: readonly string[], test: (token: string) => boolean): number[] {
  return tokens.flatMap((token, i) => (test(token) ? [i] : []));
}

function isOperator(token: string): boolean {
  return Object.hasOwn(WORDS, token);
}

function isNumber(token: string): boolean {
  return /^\d/.test(token);
}
