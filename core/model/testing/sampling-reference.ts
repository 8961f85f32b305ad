/**
 * The slow twin of sampling-graph.ts: one token from a row of logits, written like the definitions
 * and in float64. The draw inverts the cumulative sum in the order of token ids.
 */

export interface ReferenceOptions {
  /** 0 is greedy. */
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  logitBias: Readonly<Record<string, number>>;
  /** Tokens that may not be sampled. */
  masked: ReadonlySet<number>;
  /** Tokens before this one: all of the sequence, and of them those that this step sampled. */
  held: readonly number[];
  sampled: readonly number[];
}

export interface ReferenceToken {
  token: number;
  /** ln p of every token at temperature 1, nothing applied. */
  logprobs: number[];
  /** Probability of every token under the distribution that is drawn from; 0 where cut. */
  behaviour: number[];
  entropy: number;
}

export function sampleReference(
  logits: readonly number[],
  options: ReferenceOptions,
  draw: number,
): ReferenceToken {
  const full = softmax(logits);
  const scores = shapedScores(logits, options);
  const behaviour = options.temperature === 0 ? onlyBest(scores) : drawnFrom(scores, options);
  let cumulative = 0;
  const token = behaviour.findIndex((p) => (cumulative += p) >= draw);
  return {
    token,
    logprobs: full.map(Math.log),
    behaviour,
    entropy: -full.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0),
  };
}

/** Penalties, then bias, then masks. */
function shapedScores(logits: readonly number[], options: ReferenceOptions): number[] {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias, masked } = options;
  return logits.map((logit, token) => {
    if (masked.has(token)) return -Infinity;
    let score = logit;
    if (options.held.includes(token)) {
      score = score > 0 ? score / repetitionPenalty : score * repetitionPenalty;
    }
    const count = options.sampled.filter((one) => one === token).length;
    if (count > 0) score -= presencePenalty + frequencyPenalty * count;
    return score + (logitBias[String(token)] ?? 0);
  });
}

/** Temperature, then each cut on what the cut before it left, renormalised. */
function drawnFrom(scores: readonly number[], options: ReferenceOptions): number[] {
  const { temperature, topK, topP, minP } = options;
  let p = softmax(scores.map((score) => score / temperature));
  if (topK > 0) {
    const least = [...p].sort((a, b) => b - a)[Math.min(topK, p.length) - 1] as number;
    p = kept(p, least);
  }
  if (topP < 1) {
    let before = 0;
    let least = 0;
    for (const value of [...p].sort((a, b) => b - a)) {
      if (before >= topP) break;
      least = value;
      before += value;
    }
    p = kept(p, least);
  }
  return minP > 0 ? kept(p, minP * Math.max(...p)) : p;
}

function kept(p: readonly number[], least: number): number[] {
  const left = p.map((value) => (value >= least ? value : 0));
  const mass = left.reduce((sum, value) => sum + value, 0);
  return left.map((value) => value / mass);
}

function onlyBest(scores: readonly number[]): number[] {
  const best = scores.indexOf(Math.max(...scores));
  return scores.map((_, token) => (token === best ? 1 : 0));
}

function softmax(scores: readonly number[]): number[] {
  const most = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
