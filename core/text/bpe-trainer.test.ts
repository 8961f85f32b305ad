/** Tests of the BPE trainer: determinism, sizes, and that texts come back from their tokens. */
import { expect, test } from 'vitest';
import { Prng } from '../prng.ts';
import { trainBpe } from './bpe-trainer.ts';
import { BpeTokenizer } from './tokenizer.ts';

const SENTENCES = [
  'The capital of France is Paris. The capital of Chad is N’Djamena.',
  'What is 12 + 345? It is 357.',
  'naïve café, 東京 is the capital of 日本; Привет мир 😀👩‍👩‍👧 e\u0301',
  'line one\n\nline two\r\n\tindented   spaces ',
];
const SPECIAL = ['<|im_end|>', '<search>', '</search>'];

interface TokenizerFile {
  model: { vocab: Record<string, number>; merges: string[] };
  added_tokens: { id: number; content: string }[];
}

const train = (texts: Iterable<string>, vocabularySize = 320): TokenizerFile =>
  trainBpe(texts, { vocabularySize, specialTokens: SPECIAL }) as unknown as TokenizerFile;

test('equal texts give equal files, in whatever order', () => {
  const one = train(SENTENCES);
  expect(JSON.stringify(train([...SENTENCES].reverse()))).toBe(JSON.stringify(one));
  expect(one.model.merges.length).toBeGreaterThan(20);
});

test('the most frequent pair is merged first, ties by the smaller ids', () => {
  const { merges } = train(['xy', 'ab', 'xy', 'ab', 'ab', 'cd', 'cd']).model;
  expect(merges).toEqual(['a b', 'c d', 'x y']);
});

test('a pair seen once is not merged, and the vocabulary stays smaller', () => {
  const file = train(['abc']);
  expect(file.model.merges).toEqual([]);
  expect(file.added_tokens.map((token) => token.id)).toEqual([256, 257, 258]);
});

test('the vocabulary reaches exactly the size asked for, special tokens last', () => {
  const file = train([SENTENCES.join(' ').repeat(3)], 300);
  const ids = [...Object.values(file.model.vocab), ...file.added_tokens.map((token) => token.id)];
  expect(ids.sort((a, b) => a - b)).toEqual(Array.from({ length: 300 }, (_, i) => i));
  expect(file.added_tokens.map((token) => token.content)).toEqual(SPECIAL);
});

test('special tokens in the texts leave no trace in the merges', () => {
  const plain = train(['abab', 'abab']);
  expect(train(['abab<search>', '<|im_end|>abab'])).toEqual(plain);
});

test('digits stay single and words keep their leading space', () => {
  const tokenizer = new BpeTokenizer(
    trainBpe(['year 2024 2024 2024 year year'], { vocabularySize: 400, specialTokens: [] }),
    {},
  );
  const pieces = tokenizer.encode('year 2024 year').map((token) => tokenizer.decode([token]));
  expect(pieces).toEqual(['year', ' ', '2', '0', '2', '4', ' year']);
});

test('random Unicode comes back unchanged', () => {
  const tokenizer = new BpeTokenizer(
    trainBpe(SENTENCES, { vocabularySize: 400, specialTokens: SPECIAL }),
    {},
  );
  const prng = new Prng(7);
  for (let round = 0; round < 300; round++) {
    const length = prng.below(40);
    let text = prng.pick(['', prng.pick(SENTENCES), '<|im_end|>', '\ufeff']);
    for (let i = 0; i < length; i++) {
      const code = prng.below(prng.pick([0x80, 0x800, 0xd800, 0x110000]));
      // Lone surrogates are not text: UTF-8 has no form for them.
      text += code >= 0xd800 && code <= 0xdfff ? ' ' : String.fromCodePoint(code);
    }
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  }
});

test('a million characters train within seconds', () => {
  const prng = new Prng(3);
  const syllables = 'ka lo mi ten ra su por vel ne ix qua dro'.split(' ');
  const words = Array.from({ length: 5_000 }, () => prng.pick(syllables) + prng.pick(syllables));
  const text = Array.from({ length: 200_000 }, () => prng.pick(words)).join(' ');
  expect(text.length).toBeGreaterThan(1_000_000);
  const start = performance.now();
  train([text], 1024);
  expect(performance.now() - start).toBeLessThan(10_000);
});

test.each([[258], [100_000], [300.5]])('a vocabulary of %d is refused', (size) => {
  expect(() => train(['text'], size)).toThrow(`vocabularySize is ${size}`);
});
