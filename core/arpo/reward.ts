/**
 * The reward of a finished trajectory (arpo.md section 4): -1 for a broken format, else the
 * verifier's score of the answer, plus a small bonus when two different tools were really used.
 * Verifiers: `qa-f1` (token F1 after SQuAD normalisation), `exact` (equal after the same
 * normalisation) and `math` (equal as numbers). It knows nothing of rollouts: it judges an answer
 * against a task.
 */
import type { Task } from '../records.ts';
import { sameQuantity } from './quantity.ts';

export const FORMAT_PENALTY = -1;
/** Unless a run sets another one. */
export const MULTI_TOOL_BONUS = 0.1;

export interface Judgement {
  reward: number;
  /** The verifier's score in [0, 1]; 0 when the format was wrong. */
  score: number;
  /** The answer is right in full: score 1 (for qa-f1: F1 = 1), format well formed. */
  correct: boolean;
}

/**
 * Scores one trajectory. `toolsUsed` names the tools of its calls that succeeded (repeats allowed):
 * a failed call earns no bonus, so garbage calls can't buy it.
 */
export function judge(
  task: Pick<Task, 'verifier' | 'truths'>,
  outcome: { answer: string | null; formatError: string | null; toolsUsed: readonly string[] },
  multiToolBonus: number,
): Judgement {
  if (outcome.formatError !== null || outcome.answer === null) {
    return { reward: FORMAT_PENALTY, score: 0, correct: false };
  }
  const score = verify(task, outcome.answer);
  const bonus = score > 0 && new Set(outcome.toolsUsed).size >= 2 ? multiToolBonus : 0;
  return { reward: score + bonus, score, correct: score >= 1 };
}

/** Score in [0, 1] of an answer against the best of the accepted truths. */
export function verify(task: Pick<Task, 'verifier' | 'truths'>, answer: string): number {
  const compare = VERIFIERS[task.verifier];
  return Math.max(0, ...task.truths.map((truth) => compare(answer, truth)));
}

const VERIFIERS: Record<Task['verifier'], (answer: string, truth: string) => number> = {
  'qa-f1': f1,
  exact: (answer, truth) => Number(sameText(answer, truth)),
  math: (answer, truth) => Number(sameQuantity(answer, truth) ?? sameText(answer, truth)),
};

/**
 * Equal after normalisation. A text of articles or punctuation only ("A", "+") normalises to
 * nothing; there the plain texts are compared, or any such answer would match any such truth.
 */
function sameText(answer: string, truth: string): boolean {
  const said = normalise(answer);
  if (said !== normalise(truth)) return false;
  return said !== '' || answer.trim().toLowerCase() === truth.trim().toLowerCase();
}

/** These must be equal as a whole: sharing a word with them means nothing. */
const CLOSED_ANSWERS = new Set(['yes', 'no', 'noanswer']);

/** Token F1 of a prediction against one truth, with SQuAD's normalisation. */
export function f1(prediction: string, truth: string): number {
  const [said, right] = [normalise(prediction), normalise(truth)];
  if (said !== right && (CLOSED_ANSWERS.has(said) || CLOSED_ANSWERS.has(right))) return 0;
  if (said === '' || right === '') return Number(sameText(prediction, truth));
  const [saidWords, rightWords] = [said.split(' '), right.split(' ')];
  const left = new Map<string, number>();
  for (const word of rightWords) left.set(word, (left.get(word) ?? 0) + 1);
  let common = 0;
  for (const word of saidWords) {
    const count = left.get(word) ?? 0;
    if (count === 0) continue;
    left.set(word, count - 1);
    common++;
  }
  if (common === 0) return 0;
  const precision = common / saidWords.length;
  const recall = common / rightWords.length;
  return (2 * precision * recall) / (precision + recall);
}

/** SQuAD: lower case, no punctuation, no articles, single spaces. */
export function normalise(text: string): string {
  return text
    .normalize('NFC')
    .toLowerCase()
    .replace(/[\p{P}$+<=>^`|~]/gu, '')
    .replace(/(?<![\p{L}\p{N}_])(a|an|the)(?![\p{L}\p{N}_])/gu, ' ')
    .split(/\s+/)
    .filter((word) => word !== '')
    .join(' ');
}
