/** Tests of the stream decoder against decoding all tokens at once. */
import { expect, test } from 'vitest';
import { Prng } from '../prng.ts';
import { trainBpe } from './bpe-trainer.ts';
import { StreamDecoder } from './stream-decoder.ts';
import { BpeTokenizer } from './tokenizer.ts';

const tokenizer = new BpeTokenizer(
  trainBpe(['the cat and the hat, 東京 東京'], { vocabularySize: 280, specialTokens: ['<end>'] }),
  {},
);
const END = tokenizer.tokenId('<end>') as number;

test('a character in four tokens comes with the last of them', () => {
  const stream = new StreamDecoder(tokenizer);
  const pieces = tokenizer.encode('😀!').map((token) => stream.push([token]));
  expect(pieces).toEqual(['', '', '', '😀', '!']);
  expect(stream.flush()).toBe('');
});

test('skipped tokens are not shown', () => {
  const stream = new StreamDecoder(tokenizer, { skip: [END] });
  expect(stream.push([...tokenizer.encode('the cat'), END])).toBe('the cat');
});

test('random tokens, valid UTF-8 or not, in random pieces give the whole decode', () => {
  const prng = new Prng(11);
  for (let round = 0; round < 300; round++) {
    const tokens =
      round % 2 === 0
        ? Array.from({ length: prng.below(30) }, () => prng.below(tokenizer.vocabularySize))
        : tokenizer.encode('\ufeff東京 the 😀 cat e\u0301');
    const stream = new StreamDecoder(tokenizer);
    let text = '';
    for (let at = 0; at < tokens.length;) {
      const length = 1 + prng.below(4);
      const piece = stream.push(tokens.slice(at, at + length));
      if (round % 2 === 1) expect(piece).not.toContain('\ufffd');
      text += piece;
      at += length;
    }
    expect(text + stream.flush()).toBe(tokenizer.decode(tokens));
  }
});

test('an incomplete character at the end becomes one replacement character', () => {
  const stream = new StreamDecoder(tokenizer);
  const [first] = tokenizer.encode('😀') as [number];
  expect(stream.push([first])).toBe('');
  expect(stream.flush()).toBe('\ufffd');
  expect(stream.push(tokenizer.encode('cat'))).toBe('cat');
});
