/**
 * Which prompts share a prefill run. A run is as wide as the piece of its first prompt; others join
 * when theirs is nearly as wide, so that little is padded. Of prompts that go on with the same
 * tokens after the same cached blocks only the first is computed; the others follow it.
 */
import { LIMITS } from '../limits.ts';
import type { LocalSequence } from './local-sequence.ts';
import { BLOCK_TOKENS } from './kv-memory.ts';

interface Prompt {
  readonly sequence: LocalSequence;
}

export interface PrefillRun<T> {
  rows: T[];
  /** Tokens of a row, padding included. */
  width: number;
  /** Whose last tokens, less than a block, are the same as those of a row. */
  followers: Map<T, T[]>;
}

/** The next run over waiting prompts, the most urgent first: at most `tokensMax`, or one row. */
export function planPrefill<T extends Prompt>(
  waiting: readonly T[],
  tokensMax: number,
  share: boolean,
): PrefillRun<T> {
  const groups = share ? groupByNextTokens(waiting) : waiting.map((job) => [job]);
  const [first] = groups;
  if (first === undefined) return { rows: [], width: 0, followers: new Map() };
  const width = pieceOf(first[0] as T);
  const chosen = groups
    .filter(([job]) => {
      const piece = pieceOf(job as T);
      return piece <= width && 2 * piece >= width;
    })
    .slice(0, Math.max(1, Math.floor(tokensMax / width)));
  const followers = new Map(
    chosen.filter(isTail).map(([leader, ...rest]) => [leader as T, rest] as const),
  );
  return { rows: chosen.map(([leader]) => leader as T), width, followers };
}

function pieceOf({ sequence }: Prompt): number {
  return Math.min(sequence.missing, LIMITS.prefillTokensMax);
}

function isTail([job]: readonly Prompt[]): boolean {
  return job !== undefined && nextTokens(job).length < BLOCK_TOKENS;
}

/** The tokens of the next block that is not full yet, as far as they are to be prefilled. */
function nextTokens({ sequence: { kv, tokens } }: Prompt): number[] {
  const start = kv.fullBlocks * BLOCK_TOKENS;
  return tokens.slice(start, Math.min(start + BLOCK_TOKENS, tokens.length - 1));
}

function groupByNextTokens<T extends Prompt>(waiting: readonly T[]): T[][] {
  const groups = new Map<string, T[]>();
  for (const job of waiting) {
    const { kv } = job.sequence;
    const key = `${kv.blocks[kv.fullBlocks - 1]?.id ?? 'none'} ${nextTokens(job).join()}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [job]);
    else group.push(job);
  }
  return [...groups.values()];
}
