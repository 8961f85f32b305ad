/**
 * The `feedback` verifier (arpo.md section 4): the reward of a new answer, from the ratings that
 * clients gave to answers of the same question. No truth is known, so an answer is worth what was
 * said of it:
 *
 * - It agrees with a rated answer: that answer's rating. Several ratings of one answer, conflicting
 *   ones too, count as their mean; no client is trusted more than another.
 * - It agrees with none, and some answer is liked (mean above 0): a question has one answer, so
 *   this one is wrong as far as it differs: the best F1 against a liked answer, times its rating.
 * - It agrees with none, and none is liked: nothing is known. What is wrong does not say what is
 *   right, so such a trajectory has no reward and is never trained on.
 *
 * Answers agree when they are equal numbers or, in any order, the same words (normalised, F1 = 1).
 * A format error is -1 whatever was said of the answer. There is no bonus for tools: a rating is
 * the whole reward.
 */
import { clamp, mean } from './number.ts';
import { sameQuantity } from './quantity.ts';
import { f1, FORMAT_PENALTY, type Judgement } from './reward.ts';

export interface Rating {
  answer: string;
  /** As the client posted it; what lies beyond [-1, 1] counts as the bound. */
  reward: number;
}

/** Answers that agree, under the wording that came first. */
interface RatedAnswer {
  answer: string;
  rating: number;
}

export class RatedAnswers {
  private readonly rated: readonly RatedAnswer[];

  /** The order says only which of several agreeing wordings is kept. */
  constructor(ratings: readonly Rating[]) {
    const groups: { answer: string; rewards: number[] }[] = [];
    for (const { answer, reward } of ratings) {
      const value = clamp(reward, -1, 1);
      const known = groups.find((group) => similarity(answer, group.answer) === 1);
      if (known === undefined) groups.push({ answer, rewards: [value] });
      else known.rewards.push(value);
    }
    this.rated = groups.map(({ answer, rewards }) => ({ answer, rating: mean(rewards) }));
  }

  /** Answers with a mean rating above 0: what the question's truths are taken to be. */
  get liked(): string[] {
    return this.rated.flatMap(({ answer, rating }) => (rating > 0 ? [answer] : []));
  }

  /** What a finished trajectory is worth; null when nothing is known of its answer. */
  judge(outcome: { answer: string | null; formatError: string | null }): Judgement | null {
    const { answer, formatError } = outcome;
    if (formatError !== null || answer === null) {
      return { reward: FORMAT_PENALTY, score: 0, correct: false };
    }
    const known = this.rated.find((rated) => similarity(answer, rated.answer) === 1);
    if (known !== undefined) {
      const { rating } = known;
      return { reward: rating, score: Math.max(0, rating), correct: rating > 0 };
    }
    const liked = this.rated.filter(({ rating }) => rating > 0);
    if (liked.length === 0) return null;
    const score = Math.max(
      ...liked.map((rated) => similarity(answer, rated.answer) * rated.rating),
    );
    return { reward: score, score, correct: false };
  }
}

/** 1: the answers agree; else how many words they share (F1). Numbers agree or do not. */
function similarity(a: string, b: string): number {
  const same = sameQuantity(a, b) ?? sameQuantity(b, a);
  if (same === false) return 0;
  // Units are dropped from quantities, so "2 Kings" and "2 Samuel" are equal ones.
  return same === true && (isBare(a) || isBare(b)) ? 1 : f1(a, b);
}

const isBare = (text: string): boolean => !/\p{L}/u.test(text);
