/**
 * The byte alphabet of GPT-2: every byte has one printable character, so that a vocabulary of byte
 * strings can be written in JSON. Printable Latin-1 bytes stand for themselves; the others take the
 * code points from 256 up, in order. Knows nothing of merges or of special tokens.
 */
import { must } from '../assert.ts';

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

/** The character of each byte; index = byte. */
export const BYTE_CHARS: readonly string[] = byteChars();

const CHAR_BYTES: ReadonlyMap<string, number> = new Map(
  BYTE_CHARS.map((char, byte) => [char, byte]),
);

function byteChars(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isPrintable(byte) ? byte : next++),
  );
}

/** The bytes that a vocabulary entry stands for; null when a character is not of the alphabet. */
export function alphabetToBytes(entry: string): Uint8Array | null {
  const bytes = new Uint8Array(entry.length);
  for (let i = 0; i < entry.length; i++) {
    const byte = CHAR_BYTES.get(must(entry[i], 'index within the entry'));
    if (byte === undefined) return null;
    bytes[i] = byte;
  }
  return bytes;
}
