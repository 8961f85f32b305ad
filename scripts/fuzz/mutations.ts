/**
 * Seeded damage to the files of a checkpoint: bytes (flipped, cut, inserted, digits swapped), JSON
 * (a value anywhere replaced, removed or added) and safetensors headers (lengths, offsets, shapes,
 * types, with and without a header length that fits). Knows file formats, not who reads them.
 */
import type { Prng } from '../../core/prng.ts';

type Header = Record<string, Record<string, Json>>;
type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Stands for lists that nest deep; JSON.stringify could not write them. */
const NESTED = '@nested@';
const NESTING = [70, 2_000, 20_000];
/** What a reader may not expect in place of a value. */
const ODD_VALUES: readonly Json[] = [
  null,
  true,
  '',
  'x',
  '../../etc/passwd',
  '\u0000',
  -1,
  0,
  1,
  1.5,
  1e308,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 53,
  2 ** 53 + 2,
  [],
  {},
  [null],
  [[[[]]]],
  { type: 'x' },
  NESTED,
];
const DTYPES = ['F32', 'F16', 'BF16', 'F64', 'I8', 'F8_E4M3', '', 'toString', 'f32'];

/** One to three changes of a file's bytes, by its name. */
export function mutated(name: string, file: Uint8Array, prng: Prng): Buffer {
  let bytes: Buffer = Buffer.from(file);
  for (let change = prng.below(3); change >= 0; change--) {
    const whole = prng.below(3) > 0;
    if (whole && name.endsWith('.safetensors')) bytes = changedHeader(bytes, prng);
    else if (whole && name.endsWith('.json')) bytes = changedJson(bytes, prng);
    else bytes = changedBytes(bytes, prng);
  }
  return bytes;
}

function changedBytes(bytes: Buffer, prng: Prng): Buffer {
  const at = prng.below(bytes.length + 1);
  switch (prng.below(7)) {
    case 0:
      return bytes.subarray(0, at);
    case 1:
      return Buffer.concat([bytes.subarray(0, at), Buffer.alloc(1 + prng.below(64))]);
    case 2:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + prng.below(8))]);
    case 3:
      return Buffer.concat([bytes.subarray(0, at), randomBytes(prng), bytes.subarray(at)]);
    case 4:
      return digitSwapped(bytes, at, prng);
    case 5:
      return Buffer.concat([bytes, bytes.subarray(at)]);
    default: {
      const copy = Buffer.from(bytes);
      if (at < copy.length) copy[at] = prng.below(256);
      return copy;
    }
  }
}

function randomBytes(prng: Prng): Buffer {
  return Buffer.from(Array.from({ length: 1 + prng.below(16) }, () => prng.below(256)));
}

/** A digit for a digit keeps JSON whole, so the checks behind the parser are reached. */
function digitSwapped(bytes: Buffer, from: number, prng: Prng): Buffer {
  const copy = Buffer.from(bytes);
  const at = copy.findIndex((byte, i) => i >= from && byte >= 0x30 && byte <= 0x39);
  if (at >= 0) copy[at] = 0x30 + prng.below(10);
  return copy;
}

function changedJson(bytes: Buffer, prng: Prng): Buffer {
  let json: Json;
  try {
    json = JSON.parse(bytes.toString('utf8')) as Json;
    return written(changedValue(json, prng), prng);
  } catch {
    // No JSON after an earlier change, or nested too deep to be walked over.
    return changedBytes(bytes, prng);
  }
}

function written(json: Json, prng: Prng): Buffer {
  const depth = prng.pick(NESTING);
  const nested = '['.repeat(depth) + ']'.repeat(depth);
  return Buffer.from(JSON.stringify(json).replaceAll(JSON.stringify(NESTED), nested));
}

/** Walks down at random and changes what it ends at. */
function changedValue(value: Json, prng: Prng): Json {
  if (typeof value !== 'object' || value === null || prng.below(12) === 0) {
    return typeof value === 'number' && prng.below(2) === 0
      ? changedNumber(value, prng)
      : prng.pick(ODD_VALUES);
  }
  if (Array.isArray(value)) return changedList(value, prng);
  const keys = Object.keys(value);
  const copy = { ...value };
  const kind = prng.below(10);
  if (kind === 0 || keys.length === 0) {
    copy[prng.pick(['extra', '__proto__x', '', 'constructor'])] = prng.pick(ODD_VALUES);
    return copy;
  }
  const key = prng.pick(keys);
  if (kind === 1) delete copy[key];
  else copy[key] = changedValue(value[key] as Json, prng);
  return copy;
}

function changedList(list: Json[], prng: Prng): Json {
  const at = prng.below(list.length + 1);
  const kind = prng.below(6);
  if (kind === 0 || at === list.length) return [...list.slice(0, at), prng.pick(ODD_VALUES)];
  if (kind === 1) return [...list.slice(0, at), ...list.slice(at + 1)];
  if (kind === 2) return [...list, list[at] as Json];
  return list.map((item, i) => (i === at ? changedValue(item, prng) : item));
}

function changedNumber(value: number, prng: Prng): number {
  const change = prng.pick([1, -1, 4, -4, value, -2 * value]);
  return prng.below(8) === 0 ? value * prng.pick([2, 1e6, 2 ** 32, -1]) : value + change;
}

function changedHeader(bytes: Buffer, prng: Prng): Buffer {
  if (bytes.length < 8) return changedBytes(bytes, prng);
  const length = Number(bytes.readBigUInt64LE());
  if (length > bytes.length - 8 || prng.below(8) === 0) return changedLength(bytes, prng);
  let text: Buffer;
  try {
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Header;
    text = written(changedEntries(header, prng), prng);
  } catch {
    return changedBytes(bytes, prng);
  }
  const begin = Buffer.alloc(8);
  // Now and then the old length stays, and the data begins in the wrong place.
  begin.writeBigUInt64LE(BigInt(prng.below(10) === 0 ? length : text.length));
  return Buffer.concat([begin, text, bytes.subarray(8 + length)]);
}

function changedLength(bytes: Buffer, prng: Prng): Buffer {
  const copy = Buffer.from(bytes);
  const now = copy.readBigUInt64LE();
  const lengths = [0n, 1n, now + 1n, now - 1n, BigInt(bytes.length), 2n ** 53n, 2n ** 64n - 1n];
  lengths.push(BigInt(bytes.length - 8), BigInt(bytes.length - 7), 2n ** 31n, 100_000_000n);
  copy.writeBigUInt64LE(BigInt.asUintN(64, prng.pick(lengths)));
  return copy;
}

function changedEntries(header: Header, prng: Prng): Json {
  const names = Object.keys(header);
  if (names.length === 0) return prng.pick(ODD_VALUES);
  const name = prng.pick(names);
  const entry = { ...header[name] };
  const copy: { [key: string]: Json } = { ...header };
  const other = header[prng.pick(names)] as Record<string, Json>;
  switch (prng.below(8)) {
    case 0:
      delete copy[name];
      return copy;
    case 1:
      copy[`${name}x`] = entry;
      return copy;
    case 2:
      entry.dtype = prng.pick(DTYPES);
      break;
    case 3:
      entry.data_offsets = other.data_offsets ?? null;
      break;
    case 4:
      entry.shape = other.shape ?? null;
      break;
    case 5:
      entry.shape = changedValue(entry.shape ?? [], prng);
      break;
    case 6:
      entry.data_offsets = changedValue(entry.data_offsets ?? [], prng);
      break;
    default:
      return changedValue(copy, prng);
  }
  copy[name] = entry;
  return copy;
}
