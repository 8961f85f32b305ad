/**
 * Tokens of a policy directory: BPE, byte-level (Qwen, Llama 3, GPT-2 and our own) or SentencePiece
 * (Llama 2), read from tokenizer.json by @huggingface/tokenizers. The library gets the vocabulary
 * WITHOUT the added tokens, so plain text cannot become one whatever it spells; template text is
 * split at added tokens here. Decoding is the plain concatenation of token bytes: no clean-up of
 * spaces, so what a policy wrote is shown as it wrote it; SentencePiece text keeps its first blank.
 *
 * Other models (Unigram, WordPiece) are refused by name. Knows nothing of chat roles.
 */
import { join } from 'node:path';
import { toAppError } from '../errors.ts';
import { invalidFile } from '../json-file.ts';
import { LIMITS } from '../limits.ts';
import { libraryTokenizer } from './library-tokenizer.ts';
import type { LibraryTokenizer } from './library-tokenizer.ts';
import { isSingleCharacter, literalPattern } from './pattern.ts';
import { isObject, readJson, readOptionalJson } from './policy-files.ts';
import type { JsonObject } from './policy-files.ts';
import type { Tokenizer } from './types.ts';
import { vocabularyKind } from './vocabulary-kind.ts';

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  /** Takes the white space before (after) it away. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

const NO_BYTES = new Uint8Array(0);
/** Something of every kind that pre-tokenizers tell apart. */
const TRIAL_TEXT = "It's 7 + 8.5?\n\n <a>\tÄß 日本 🙂";

/**
 * Reads tokenizer.json (and tokenizer_config.json if there is one). Throws policy_invalid that
 * names the file when it is missing, broken or of a kind that is not supported.
 */
export function loadTokenizer(directory: string): BpeTokenizer {
  const file = readJson(directory, 'tokenizer.json');
  const config = readOptionalJson(directory, 'tokenizer_config.json') ?? {};
  const path = join(directory, 'tokenizer.json');
  try {
    const tokenizer = new BpeTokenizer(file, config);
    // The library looks at some settings only when they are needed.
    tokenizer.encodeTemplate(TRIAL_TEXT);
    return tokenizer;
  } catch (error) {
    throw invalidFile(path, toAppError(error).message, error);
  }
}

export class BpeTokenizer implements Tokenizer {
  readonly vocabularySize: number;
  readonly addedTokens: readonly AddedToken[];
  private readonly library: LibraryTokenizer;
  /** For text behind other text; differs where only the first word of a text is marked. */
  private readonly inner: LibraryTokenizer;
  private readonly bytes: Uint8Array[] = [];
  private readonly special = new Set<number>();
  private readonly addedIds = new Map<string, AddedToken>();

  /** Throws an Error (any) when the file is not what it should be; loadTokenizer names the file. */
  constructor(file: JsonObject, config: JsonObject) {
    requireBpe(file);
    const kind = vocabularyKind(file);
    this.addedTokens = readAddedTokens(file.added_tokens);
    const model = file.model as JsonObject;
    const vocabulary = model.vocab as Record<string, number>;
    for (const [entry, id] of Object.entries(vocabulary)) {
      if (!isTokenId(id)) throw new Error(`the id of ${entry} is ${String(id)}`);
      this.bytes[id] = kind.entryBytes(entry);
    }
    for (const token of this.addedTokens) {
      this.bytes[token.id] = new TextEncoder().encode(token.content);
      this.addedIds.set(token.content, token);
      if (token.special) this.special.add(token.id);
    }
    this.vocabularySize = this.bytes.length;
    for (const entry of kind.byteEntries) {
      if (!Object.hasOwn(vocabulary, entry)) {
        throw new Error(`the vocabulary has no token for ${entry}`);
      }
    }
    const plain = { ...file, added_tokens: [], model: plainModel(model, this.addedTokens) };
    this.library = libraryTokenizer(plain, config);
    const inside = preTokenizerInside(file.pre_tokenizer);
    this.inner =
      inside === null
        ? this.library
        : libraryTokenizer({ ...plain, pre_tokenizer: inside }, config);
  }

  encode(text: string): number[] {
    return this.library.encode(text, { add_special_tokens: false }).ids;
  }

  private encodeInside(text: string): number[] {
    return this.inner.encode(text, { add_special_tokens: false }).ids;
  }

  /**
   * `guard`: a character that breaks the spelling of an added token, so that it is text; all guards
   * are removed before encoding (template-guard.ts).
   */
  encodeTemplate(text: string, guard?: string): number[] {
    if (this.addedTokens.length === 0) return this.encode(unguarded(text, guard));
    // Odd pieces are the added tokens, because the pattern is a capturing group.
    const pieces = text.split(new RegExp(`(${spellings(this.addedTokens, guard)})`, 'u'));
    const out: number[] = [];
    for (let i = 0; i < pieces.length; i++) {
      const piece = pieces[i] as string;
      const added = i % 2 === 1 ? this.addedIds.get(piece) : undefined;
      if (added) {
        out.push(added.id);
        continue;
      }
      let plain = unguarded(piece, guard);
      if (this.addedIds.get(pieces[i - 1] ?? '')?.rstrip) plain = plain.trimStart();
      if (this.addedIds.get(pieces[i + 1] ?? '')?.lstrip) plain = plain.trimEnd();
      for (const id of i === 0 ? this.encode(plain) : this.encodeInside(plain)) out.push(id);
    }
    return out;
  }

  /** Ids that the vocabulary does not use (padding of the model's embedding) decode to nothing. */
  decode(tokens: ArrayLike<number>, options: { skipSpecial?: boolean } = {}): string {
    const parts: Uint8Array[] = [];
    for (let i = 0; i < tokens.length; i++) {
      const token = tokens[i] as number;
      if (!(options.skipSpecial && this.special.has(token))) parts.push(this.tokenBytes(token));
    }
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(parts));
  }

  tokenBytes(token: number): Uint8Array {
    return this.bytes[token] ?? NO_BYTES;
  }

  isSpecial(token: number): boolean {
    return this.special.has(token);
  }

  tokenId(token: string): number | null {
    return this.addedIds.get(token)?.id ?? null;
  }
}

function unguarded(text: string, guard: string | undefined): string {
  return guard === undefined ? text : text.replaceAll(guard, '');
}

/**
 * Alternatives, longest first: the longest spelling at a position wins, as in the library. A guard
 * inside a spelling breaks it; a token of one character has no inside, so two guards before it do.
 */
function spellings(tokens: readonly AddedToken[], guard: string | undefined): string {
  const contents = tokens.map((token) => token.content).sort((a, b) => b.length - a.length);
  return contents
    .map((content) => {
      const before =
        guard !== undefined && isSingleCharacter(content) ? `(?<!${guard}${guard})` : '';
      return before + literalPattern(content);
    })
    .join('|');
}

function requireBpe(file: JsonObject): void {
  const model = file.model;
  if (!isObject(model)) throw new Error('has no model');
  if (model.type !== 'BPE')
    throw new Error(`model type ${String(model.type)}: only BPE is supported`);
  if (!isObject(model.vocab) || !Array.isArray(model.merges)) {
    throw new Error('the BPE model has no vocab or no merges');
  }
}

/** The pre-tokenizer for text behind other text; null where it makes no difference. */
function preTokenizerInside(pre: unknown): JsonObject | null {
  if (!isObject(pre) || pre.type !== 'Metaspace' || pre.prepend_scheme !== 'first') return null;
  return { ...pre, prepend_scheme: 'never' };
}

/** Small enough to number the entries of a list. */
function isTokenId(id: unknown): id is number {
  return typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < LIMITS.vocabularyMax;
}

function readAddedTokens(list: unknown): AddedToken[] {
  if (list === undefined || list === null) return [];
  if (!Array.isArray(list)) throw new Error('added_tokens is not a list');
  return list.map((item: unknown) => {
    if (!isObject(item) || typeof item.content !== 'string' || item.content === '') {
      throw new Error(`added_tokens holds ${JSON.stringify(item)}, which has no content`);
    }
    if (!isTokenId(item.id)) {
      throw new Error(`the added token ${item.content} has no id, but ${String(item.id)}`);
    }
    return {
      id: item.id,
      content: item.content,
      special: item.special === true,
      lstrip: item.lstrip === true,
      rstrip: item.rstrip === true,
    };
  });
}

/**
 * The model without the added tokens, and without merges that would spell one: merges need their
 * result in the vocabulary, and the library drops what it cannot find.
 */
function plainModel(model: JsonObject, added: readonly AddedToken[]): JsonObject {
  const ids = new Set(added.map((token) => token.id));
  const removed = new Set<string>();
  const vocab: Record<string, number> = {};
  for (const [entry, id] of Object.entries(model.vocab as Record<string, number>)) {
    if (ids.has(id)) removed.add(entry);
    else vocab[entry] = id;
  }
  const merges = model.merges as (string | [string, string])[];
  if (removed.size === 0) return { ...model, vocab };
  const spelled = (merge: string | [string, string]): string =>
    typeof merge === 'string' ? merge.replace(' ', '') : merge.join('');
  return { ...model, vocab, merges: merges.filter((merge) => !removed.has(spelled(merge))) };
}
