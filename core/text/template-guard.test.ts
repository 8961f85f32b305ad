/** Tests of the guard: random texts made of pieces of tokens, between pieces of template. */
import { expect, test } from 'vitest';
import { Prng } from '../prng.ts';
import { trainBpe } from './bpe-trainer.ts';
import { chooseGuard, TemplateGuard } from './template-guard.ts';
import { BpeTokenizer } from './tokenizer.ts';

// Overlapping spellings, one inside another, and a token of a single character.
const SPECIAL = ['<|a|>', '|><|', '<|a|><|b|>', 'aXa', '東', '😀😀'];
const tokenizer = new BpeTokenizer(
  trainBpe(['abc'], { vocabularySize: 300, specialTokens: SPECIAL }),
  {},
);

const specials = (tokens: readonly number[]): string[] =>
  tokens.filter((token) => tokenizer.isSpecial(token)).map((token) => tokenizer.decode([token]));

test('whatever the user writes, the template’s tokens and no others are special', () => {
  const prng = new Prng(5);
  const parts = [...SPECIAL, '<', '|', '>', '<|', '|>', 'a', 'X', 'aX', 'b', '😀', ' ', '\n'];
  for (let round = 0; round < 2_000; round++) {
    const user = Array.from({ length: prng.below(6) }, () => prng.pick(parts)).join('');
    const guard = new TemplateGuard(chooseGuard([user]), tokenizer.addedTokens);
    const text = `<|a|>${guard.text(user)}東`;
    const tokens = tokenizer.encodeTemplate(text, guard.char);
    expect(tokenizer.decode(tokens), JSON.stringify(user)).toBe(`<|a|>${user}東`);
    expect(specials(tokens), JSON.stringify(user)).toEqual(['<|a|>', '東']);
  }
});

test('text that spells no token is not touched', () => {
  const guard = new TemplateGuard('\ue000', tokenizer.addedTokens);
  expect(guard.text(' plain text, 1 < 2 ')).toBe(' plain text, 1 < 2 ');
  expect(guard.deep({ k: ['v', 1, null, { 東: '' }] })).toEqual({
    k: ['v', 1, null, { '\ue000\ue000東': '' }],
  });
});

test('the guard is a character that the conversation does not use, keys included', () => {
  expect(chooseGuard({ '\ue000': ['\ue001', { a: '\ue003' }] })).toBe('\ue002');
  const all = Array.from({ length: 6_400 }, (_, i) => String.fromCharCode(0xe000 + i)).join('');
  expect(() => chooseGuard([all])).toThrow(expect.objectContaining({ code: 'invalid_request' }));
});
