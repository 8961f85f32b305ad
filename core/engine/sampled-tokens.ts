/** Joins pieces of sampled tokens. */
import type { SampledTokens } from '../ports.ts';

export function emptyTokens(): SampledTokens {
  return joinTokens([]);
}

/** One piece after the other. */
export function joinTokens(parts: readonly SampledTokens[]): SampledTokens {
  const length = parts.reduce((sum, part) => sum + part.tokens.length, 0);
  const joined: SampledTokens = {
    tokens: new Uint32Array(length),
    logprobs: new Float32Array(length),
    behaviourLogprobs: new Float32Array(length),
    entropies: new Float32Array(length),
  };
  let at = 0;
  for (const part of parts) {
    joined.tokens.set(part.tokens, at);
    joined.logprobs.set(part.logprobs, at);
    joined.behaviourLogprobs.set(part.behaviourLogprobs, at);
    joined.entropies.set(part.entropies, at);
    at += part.tokens.length;
  }
  return joined;
}
