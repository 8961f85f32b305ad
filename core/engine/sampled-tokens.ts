/** Joins and cuts pieces of sampled tokens. */
import type { LikeliestTokens, SampledTokens } from '../ports.ts';

type FloatFigure = 'logprobs' | 'behaviourLogprobs' | 'entropies' | 'candidateEntropies';

export function emptyTokens(): SampledTokens {
  return joinTokens([]);
}

/** One piece after the other; all are of one request, so they have the same figures. */
export function joinTokens(parts: readonly SampledTokens[]): SampledTokens {
  const length = parts.reduce((sum, part) => sum + part.tokens.length, 0);
  const floats = (name: FloatFigure) =>
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
    ...(parts[0]?.likeliest && {
      likeliest: joinLikeliest(parts.flatMap(({ likeliest }) => likeliest ?? [])),
    }),
  };
}

/** The first `count` tokens of a piece. */
export function firstTokens(piece: SampledTokens, count: number): SampledTokens {
  const { candidateEntropies, likeliest } = piece;
  return {
    tokens: piece.tokens.slice(0, count),
    logprobs: piece.logprobs.slice(0, count),
    behaviourLogprobs: piece.behaviourLogprobs.slice(0, count),
    entropies: piece.entropies.slice(0, count),
    ...(candidateEntropies && { candidateEntropies: candidateEntropies.slice(0, count) }),
    ...(likeliest && {
      likeliest: {
        count: likeliest.count,
        tokens: likeliest.tokens.slice(0, count * likeliest.count),
        logprobs: likeliest.logprobs.slice(0, count * likeliest.count),
      },
    }),
  };
}

function joinLikeliest(parts: readonly LikeliestTokens[]): LikeliestTokens {
  const length = parts.reduce((sum, part) => sum + part.tokens.length, 0);
  const tokens = parts.map((part) => part.tokens);
  const logprobs = parts.map((part) => part.logprobs);
  return {
    count: parts[0]?.count ?? 0,
    tokens: joinInto(new Uint32Array(length), tokens),
    logprobs: joinInto(new Float32Array(length), logprobs),
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
