/**
 * The two ways in which a BPE vocabulary writes bytes. Byte-level (GPT-2, Qwen, Llama 3): every
 * character of an entry is one byte of the GPT-2 alphabet. SentencePiece (Llama 2, Mistral):
 * entries are text in which ▁ is a blank, and bytes that no entry covers are written <0x0A>.
 */
import { alphabetToBytes, BYTE_CHARS } from './byte-alphabet.ts';
import { isObject } from './policy-files.ts';
import type { JsonObject } from './policy-files.ts';

export interface VocabularyKind {
  /** The entry of each byte; with all of them in the vocabulary every text can be encoded. */
  readonly byteEntries: readonly string[];
  /** The UTF-8 bytes that an entry stands for. */
  entryBytes(entry: string): Uint8Array;
}

const ENCODER = new TextEncoder();

const BYTE_LEVEL: VocabularyKind = {
  byteEntries: BYTE_CHARS,
  entryBytes: (entry) => alphabetToBytes(entry) ?? ENCODER.encode(entry),
};

const SENTENCE_PIECE: VocabularyKind = {
  byteEntries: Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  ),
  entryBytes(entry) {
    const byte = /^<0x([0-9A-F]{2})>$/.exec(entry);
    if (byte !== null) return Uint8Array.of(parseInt(byte[1] as string, 16));
    return ENCODER.encode(entry.replaceAll('▁', ' '));
  },
};

/** By the decoder of tokenizer.json. Throws Error that says what is supported. */
export function vocabularyKind(file: JsonObject): VocabularyKind {
  const decoder = isObject(file.decoder) ? file.decoder : {};
  if (decoder.type === 'ByteLevel') return BYTE_LEVEL;
  const parts = Array.isArray(decoder.decoders) ? decoder.decoders.filter(isObject) : [];
  const fallback = isObject(file.model) && file.model.byte_fallback === true;
  if (fallback && parts.some(({ type }) => type === 'ByteFallback')) return SENTENCE_PIECE;
  throw new Error(
    `decoder ${JSON.stringify(decoder.type ?? null)}: only byte-level BPE (ByteLevel) and SentencePiece ` +
      'BPE with byte fallback are supported',
  );
}
