/**
 * Trains a byte-level BPE tokenizer (Sennrich et al. 2016, over bytes as in GPT-2) and gives it the
 * form of a Hugging Face tokenizer.json. Unique pre-tokens are counted once; pair counts are kept
 * up to date in place and the next merge comes from a heap with lazy deletion. Ties go to the pair
 * with the smaller ids, so equal texts in any order give an equal tokenizer.
 *
 * The split into pre-tokens is done by the very library that encodes later, so the two cannot
 * drift. Knows nothing of files, templates or protocols.
 */
import { assert, must } from '../assert.ts';
import { AppError } from '../errors.ts';
import { BYTE_CHARS } from './byte-alphabet.ts';
import { libraryTokenizer } from './library-tokenizer.ts';
import { literalPattern } from './pattern.ts';
import type { JsonObject } from './policy-files.ts';

/**
 * Words with their leading space, digits one by one, runs of punctuation, line breaks, white space:
 * GPT-2's split with Qwen2's single digits, so that a small policy sees every number digit by
 * digit.
 */
const SPLIT_PATTERN =
  "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** A pair is packed into one number: left * PAIR_BASE + right. */
const PAIR_BASE = 65_536;

export interface BpeOptions {
  /** Upper bound on all tokens: 256 bytes, merges and special tokens. Few texts give fewer. */
  vocabularySize: number;
  /** Get the last ids, in this order. Where the texts spell one, the text is split around it. */
  specialTokens: readonly string[];
  /** Pairs seen less often are not merged; default 2. */
  minFrequency?: number;
}

/** Returns the object to write as tokenizer.json. Throws invalid_request on impossible sizes. */
export function trainBpe(texts: Iterable<string>, options: BpeOptions): JsonObject {
  const { vocabularySize, specialTokens } = options;
  const mergesMax = vocabularySize - 256 - specialTokens.length;
  if (!Number.isInteger(vocabularySize) || mergesMax < 0 || vocabularySize > PAIR_BASE) {
    throw new AppError(
      'invalid_request',
      `vocabularySize is ${vocabularySize}; it must hold 256 bytes and ${specialTokens.length} ` +
        `special tokens, and be at most ${PAIR_BASE}`,
    );
  }
  const words = countWords(texts, specialTokens);
  const { entries, merges } = learnMerges(words, mergesMax, options.minFrequency ?? 2);
  return tokenizerJson(entries, merges, specialTokens);
}

/** Unique pre-tokens, in the byte alphabet, with how often each occurs. */
function countWords(
  texts: Iterable<string>,
  specialTokens: readonly string[],
): Map<string, number> {
  const library = libraryTokenizer(tokenizerJson([...BYTE_CHARS], [], []), {});
  const preTokenizer = must(library.pre_tokenizer, 'the trained form has a pre-tokenizer');
  const escaped = specialTokens.map(literalPattern);
  const special = escaped.length > 0 ? new RegExp(escaped.join('|'), 'g') : null;
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const section of special ? text.split(special) : [text]) {
      if (section.length === 0) continue;
      for (const word of preTokenizer.pre_tokenize(section)) {
        counts.set(word, (counts.get(word) ?? 0) + 1);
      }
    }
  }
  return counts;
}

interface Word {
  tokens: number[];
  count: number;
}

/** Pair counts and where each pair occurs, kept right while words are rewritten. */
class PairTable {
  readonly counts = new Map<number, number>();
  readonly places = new Map<number, Set<number>>();

  add(word: Word, index: number, sign: 1 | -1, changed: Set<number>): void {
    for (let i = 0; i + 1 < word.tokens.length; i++) {
      const pair = (word.tokens[i] as number) * PAIR_BASE + (word.tokens[i + 1] as number);
      this.counts.set(pair, (this.counts.get(pair) ?? 0) + sign * word.count);
      changed.add(pair);
      if (sign === -1) continue;
      const places = this.places.get(pair);
      if (places) places.add(index);
      else this.places.set(pair, new Set([index]));
    }
  }
}

function learnMerges(
  wordCounts: Map<string, number>,
  mergesMax: number,
  minFrequency: number,
): { entries: string[]; merges: string[] } {
  const entries = [...BYTE_CHARS];
  const ids = new Map(entries.map((entry, id) => [entry, id]));
  const words: Word[] = [...wordCounts].map(([word, count]) => ({
    tokens: Array.from(word, (char) => must(ids.get(char), 'pre-tokens are in the alphabet')),
    count,
  }));
  const pairs = new PairTable();
  const touched = new Set<number>();
  words.forEach((word, index) => pairs.add(word, index, 1, touched));
  const heap = new PairHeap();
  for (const pair of touched) heap.push(pairs.counts.get(pair) as number, pair);

  const merges: string[] = [];
  while (entries.length < 256 + mergesMax) {
    const top = heap.pop();
    if (top === null || top.count < minFrequency) break;
    // An entry whose count has changed since it was pushed is stale; a newer one is in the heap.
    if (pairs.counts.get(top.pair) !== top.count) continue;
    const left = Math.floor(top.pair / PAIR_BASE);
    const right = top.pair % PAIR_BASE;
    const merged = (entries[left] as string) + (entries[right] as string);
    // Two different pairs may spell the same string; the second merge makes no new entry.
    const id = ids.get(merged) ?? entries.push(merged) - 1;
    ids.set(merged, id);
    merges.push(`${entries[left]} ${entries[right]}`);
    const changed = new Set<number>();
    for (const index of pairs.places.get(top.pair) ?? []) {
      const word = words[index] as Word;
      pairs.add(word, index, -1, changed);
      word.tokens = mergePair(word.tokens, left, right, id);
      pairs.add(word, index, 1, changed);
    }
    pairs.places.delete(top.pair);
    for (const pair of changed) heap.push(pairs.counts.get(pair) as number, pair);
  }
  return { entries, merges };
}

function mergePair(tokens: readonly number[], left: number, right: number, id: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < tokens.length; i++) {
    if (tokens[i] === left && tokens[i + 1] === right) {
      out.push(id);
      i++;
    } else {
      out.push(tokens[i] as number);
    }
  }
  return out;
}

interface HeapItem {
  count: number;
  pair: number;
}

/** Binary heap: highest count first, then the smallest pair. */
class PairHeap {
  private readonly items: HeapItem[] = [];

  push(count: number, pair: number): void {
    if (count <= 0) return;
    const items = this.items;
    items.push({ count, pair });
    for (let i = items.length - 1; i > 0;) {
      const parent = (i - 1) >> 1;
      if (!this.before(i, parent)) break;
      this.swap(i, parent);
      i = parent;
    }
  }

  pop(): HeapItem | null {
    const items = this.items;
    const top = items[0];
    const last = items.pop();
    if (top === undefined || last === undefined) return null;
    if (items.length === 0) return top;
    items[0] = last;
    for (let i = 0; ;) {
      let first = i;
      if (2 * i + 1 < items.length && this.before(2 * i + 1, first)) first = 2 * i + 1;
      if (2 * i + 2 < items.length && this.before(2 * i + 2, first)) first = 2 * i + 2;
      if (first === i) return top;
      this.swap(i, first);
      i = first;
    }
  }

  private before(i: number, j: number): boolean {
    const a = this.items[i] as HeapItem;
    const b = this.items[j] as HeapItem;
    return a.count !== b.count ? a.count > b.count : a.pair < b.pair;
  }

  private swap(i: number, j: number): void {
    const held = this.items[i] as HeapItem;
    this.items[i] = this.items[j] as HeapItem;
    this.items[j] = held;
  }
}

function tokenizerJson(
  entries: readonly string[],
  merges: readonly string[],
  specialTokens: readonly string[],
): JsonObject {
  const known = new Set(entries);
  for (const token of specialTokens) {
    assert(
      token.length > 0 && !known.has(token),
      `the special token ${token} is also a text token`,
    );
    known.add(token);
  }
  const byteLevel = {
    type: 'ByteLevel',
    add_prefix_space: false,
    trim_offsets: false,
    use_regex: false,
  };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, i) => ({
      id: entries.length + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        {
          type: 'Split',
          pattern: { Regex: SPLIT_PATTERN },
          behavior: 'Isolated',
          invert: false,
        },
        byteLevel,
      ],
    },
    post_processor: byteLevel,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(entries.map((entry, id) => [entry, id])),
      merges,
    },
  };
}
