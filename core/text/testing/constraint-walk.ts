/** A policy that knows nothing: it samples uniformly among the tokens that a constraint allows. */
import { must } from '../../assert.ts';
import type { Prng } from '../../prng.ts';
import type { Constraint } from '../../records.ts';
import { compileConstraint } from '../constraint.ts';
import { MaskedAutomaton, type TokenTable } from '../token-mask.ts';

export function allowedTokens(mask: Uint32Array, vocabularySize: number): number[] {
  const all = Array.from({ length: vocabularySize }, (_, token) => token);
  return all.filter((token) => ((must(mask[token >>> 5], 'word') >>> (token & 31)) & 1) === 1);
}

/** The sampled tokens, up to one of `ends`; null when none came within `tokensMax`. */
export function walkConstraint(
  constraint: Constraint,
  table: TokenTable,
  options: { prng: Prng; ends: readonly number[]; tokensMax?: number },
): number[] | null {
  const { prng, ends, tokensMax = 3_000 } = options;
  const masked = new MaskedAutomaton(compileConstraint(constraint), table);
  const { vocabularySize } = table.vocabulary;
  const tokens: number[] = [];
  let position = masked.start();
  while (tokens.length < tokensMax) {
    const token = prng.pick(allowedTokens(masked.allowed(position), vocabularySize));
    position = must(masked.next(position, token), `a position after the allowed ${token}`);
    tokens.push(token);
    if (ends.includes(token)) return tokens;
  }
  return null;
}
