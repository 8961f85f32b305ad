/**
 * Which prompts share a prefill run. A run is as wide as the piece of its first prompt; others join
 * when theirs is nearly as wide, so that little is padded. Of prompts that go on with the same
 * tokens after the same cached blocks only the first is computed; the others follow it. How far
 * tokens must be the same is a matter of sharing: a block, or all that is left of the prompts.
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
  /** Who takes over what a row has: its last tokens, less than a block, or all, are the same. */
  followers: Map<T, T[]>;
}

/** The next run over waiting prompts, the most urgent first: at most `tokensMax`, or one row. */
export function planPrefill<T extends Prompt>(
  waiting: readonly T[],
  tokensMax: number,
  share: boolean | 'equal',
): PrefillRun<T> {
  const groups =
    share === false
      ? waiting.map((job) => [job])
      : groupBy(waiting, share === 'equal' ? allTokensKey : nextTokensKey);
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
    (share === 'equal' ? chosen : chosen.filter(isTail)).map(
      ([leader, ...rest]) => [leader as T, rest] as const,
    ),
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

/** Equal for prompts whose next block is the same, after the same full blocks. */
function nextTokensKey(job: Prompt): string {
  const { kv } = job.sequence;
  return `${kv.blocks[kv.fullBlocks - 1]?.id ?? 'none'} ${nextTokens(job).join()}`;
}

/** Equal for prompts that hold the same cache and lack the same tokens. */
function allTokensKey({ sequence: { kv, tokens } }: Prompt): string {
  const missing = tokens.slice(kv.length, tokens.length - 1);
  return `${kv.blocks.at(-1)?.id ?? 'none'} ${kv.length} ${missing.join()}`;
}

function groupBy<T>(waiting: readonly T[], keyOf: (job: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const job of waiting) {
    const key = keyOf(job);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [job]);
    else group.push(job);
  }
  return [...groups.values()];
}
