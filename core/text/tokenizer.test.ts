/** Tests of the tokenizer: what user text can and cannot become, and what broken files say. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { libraryTokenizer } from './library-tokenizer.ts';
import { writeQwenFiles } from './testing/qwen-files.ts';
import { loadTokenizer } from './tokenizer.ts';
import type { BpeTokenizer } from './tokenizer.ts';

let directory: string;
let tokenizer: BpeTokenizer;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ramify-tokenizer-'));
  writeQwenFiles(directory);
  tokenizer = loadTokenizer(directory);
});

afterAll(() => rmSync(directory, { recursive: true }));

const tokenizerFile = (): Record<string, never> =>
  JSON.parse(readFileSync(join(directory, 'tokenizer.json'), 'utf8'));

test('template text yields added tokens, plain text never does', () => {
  const text = '<|im_start|>user\n<tool_call>hi</tool_call><|im_end|>';
  const ids = tokenizer.addedTokens.map((token) => token.id);
  const template = tokenizer.encodeTemplate(text);
  const plain = tokenizer.encode(text);
  expect(template.filter((id) => ids.includes(id))).toHaveLength(4);
  expect(plain.filter((id) => ids.includes(id))).toEqual([]);
  expect(tokenizer.decode(template)).toBe(text);
  expect(tokenizer.decode(plain)).toBe(text);
});

test('template text encodes as the library encodes it with all tokens', () => {
  const library = libraryTokenizer(tokenizerFile(), {});
  for (const text of ['', 'a <|im_end|>\n b', '<|im_end|><|im_end|>', '<|im_', 'x</tool_call>']) {
    const expected = library.encode(text, { add_special_tokens: false }).ids;
    expect(tokenizer.encodeTemplate(text)).toEqual(expected);
  }
});

test('merges and entries that spell an added token do not reach plain text', () => {
  const file = tokenizerFile() as unknown as {
    model: { vocab: Record<string, number>; merges: string[]; ignore_merges: boolean };
    added_tokens: { id: number; content: string }[];
  };
  // As in files whose added tokens are in the vocabulary too, reachable by merges.
  file.model.vocab.user = file.added_tokens.length + 1000;
  file.added_tokens.push({ id: file.model.vocab.user, content: 'user' });
  file.model.ignore_merges = true;
  const other = mkdtempSync(join(tmpdir(), 'ramify-tokenizer-'));
  writeFileSync(join(other, 'tokenizer.json'), JSON.stringify(file));
  const changed = loadTokenizer(other);
  rmSync(other, { recursive: true });
  expect(changed.encode('user')).not.toContain(changed.tokenId('user'));
  expect(changed.decode(changed.encode('a user'))).toBe('a user');
  expect(changed.encodeTemplate('user')).toEqual([changed.tokenId('user')]);
});

test('special tokens are shown or skipped; unused ids decode to nothing', () => {
  const end = tokenizer.tokenId('<|im_end|>') as number;
  const call = tokenizer.tokenId('<tool_call>') as number;
  const tokens = [...tokenizer.encode('a b'), call, end, 1_000_000];
  expect(tokenizer.decode(tokens)).toBe('a b<tool_call><|im_end|>');
  expect(tokenizer.decode(tokens, { skipSpecial: true })).toBe('a b<tool_call>');
  expect(tokenizer.decode([])).toBe('');
  expect(tokenizer.tokenId('user')).toBeNull();
  expect(tokenizer.tokenId('<|im_nope|>')).toBeNull();
});

describe('a broken tokenizer.json is policy_invalid and named', () => {
  const broken: [string, string | ((file: Record<string, unknown>) => void), string][] = [
    ['cut', '{"model":', 'is not valid JSON'],
    ['a list', '[]', 'holds no JSON object'],
    ['no model', (file) => delete file.model, 'has no model'],
    ['another model', (file) => (file.model = { type: 'Unigram' }), 'model type Unigram'],
    ['no merges', (file) => (file.model = { type: 'BPE', vocab: {} }), 'no vocab or no merges'],
    ['no byte fallback', (file) => (file.decoder = { type: 'Sequence' }), 'decoder "Sequence"'],
    ['an odd added token', (file) => (file.added_tokens = [{ id: 3 }]), 'which has no content'],
    [
      'a missing byte',
      (file) => (file.model = { type: 'BPE', vocab: { a: 0 }, merges: [] }),
      'no token for',
    ],
    ['no normaliser key', (file) => delete file.normalizer, 'normalizer'],
  ];
  test.each(broken)('%s', (_name, change, message) => {
    const other = mkdtempSync(join(tmpdir(), 'ramify-tokenizer-'));
    let text = change;
    if (typeof text === 'function') {
      const file = tokenizerFile();
      text(file);
      text = JSON.stringify(file);
    }
    writeFileSync(join(other, 'tokenizer.json'), text);
    const path = join(other, 'tokenizer.json');
    expect(() => loadTokenizer(other)).toThrow(
      expect.objectContaining({
        code: 'policy_invalid',
        message: expect.stringMatching(new RegExp(`^${path}: .*${message}`, 's')),
      }),
    );
    rmSync(other, { recursive: true });
  });

  test('missing', () => {
    expect(() => loadTokenizer('/nowhere')).toThrow('/nowhere/tokenizer.json: is missing');
  });
});
