/** Joins pieces of sampled tokens. */
import type { SampledTokens } from '../ports.ts';

export function emptyTokens(): SampledTokens {
  return joinTokens([]);
}

/** One piece after the other; all are of one engine, so they have the same figures. */
export function joinTokens(parts: readonly SampledTokens[]): SampledTokens {
  const length = parts.reduce((sum, part) => sum + part.tokens.length, 0);
  const floats = (name: Exclude<keyof SampledTokens, 'tokens'>) =>
    joinInto(
      new Float32Array(length),
      parts.map((part) => part[name] ?? []),
    );
  return {
    tokens: joinInto(
      new Uint32Array(length),
      parts.map(({ tokens }) => tokens),
    ),
    logprobs: floats('logprobs'),
    behaviourLogprobs: floats('behaviourLogprobs'),
    entropies: floats('entropies'),
    ...(parts[0]?.candidateEntropies && { candidateEntropies: floats('candidateEntropies') }),
  };
}

function joinInto<T extends Uint32Array | Float32Array>(
  joined: T,
  parts: readonly ArrayLike<number>[],
): T {
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
