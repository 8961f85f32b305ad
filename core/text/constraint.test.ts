/**
 * Constraints on the vocabulary of the shipped policy: whatever a policy that knows nothing samples
 * under the masks is valid for ajv, and the masks are what trying every token would give.
 */
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { Prng } from '../prng.ts';
import type { Constraint, JsonSchema } from '../records.ts';
import { compileConstraint } from './constraint.ts';
import { allowedTokens, walkConstraint } from './testing/constraint-walk.ts';
import { randomSchema, withDefinitions } from './testing/random-schema.ts';
import { MaskedAutomaton, tokenBytesOf, TokenTable } from './token-mask.ts';
import { loadTokenizer } from './tokenizer.ts';

const tokenizer = loadTokenizer(join(import.meta.dirname, '../../policies/embedded'));
const vocabulary = tokenBytesOf(tokenizer);
const table = new TokenTable(vocabulary);
const end = must(tokenizer.tokenId('<|im_end|>'), 'end');
const ajv = new Ajv2020({ strict: false });

const json = (schema: JsonSchema, escaped = ''): Constraint => [
  { kind: 'json', schema, escaped },
  { kind: 'token', anyOf: [end] },
];

/** What a uniform policy writes under the masks, without the end token; null: it did not end. */
function walk(constraint: Constraint, prng: Prng, tokensMax?: number): string | null {
  const tokens = walkConstraint(constraint, table, {
    prng,
    ends: [end],
    ...(tokensMax !== undefined && { tokensMax }),
  });
  return tokens && tokenizer.decode(tokens.slice(0, -1));
}

/** Whether a text fits, whatever its tokens. */
function accepts(constraint: Constraint, text: string): boolean {
  const run = compileConstraint(constraint);
  let position: ReturnType<typeof run.byte> = run.start();
  for (const byte of new TextEncoder().encode(text)) {
    position = position && run.byte(position, byte);
  }
  return position?.isEnd ?? false;
}

describe('JSON', () => {
  it('is valid under 120 random schemas', () => {
    const prng = new Prng(5);
    for (let i = 0; i < 120; i++) {
      const schema = withDefinitions(randomSchema(prng));
      for (const escaped of ['', '<{}']) {
        const text = must(walk(json(schema, escaped), prng), JSON.stringify(schema));
        const value: unknown = JSON.parse(text);
        expect(ajv.validate(schema, value), `${JSON.stringify(schema)}\n${text}`).toBe(true);
        for (const [inString] of text.matchAll(/"(?:[^"\\]|\\.)*"/g)) {
          if (escaped !== '') expect(inString).not.toMatch(/[<{}]/);
        }
      }
    }
  });

  it('may be any value, nested no deeper than the bound', () => {
    const prng = new Prng(6);
    const texts = Array.from({ length: 60 }, () => walk(json(true), prng)).filter(
      (t) => t !== null,
    );
    expect(texts.length).toBeGreaterThan(30);
    for (const text of texts) JSON.parse(text);
    const deep = (levels: number) =>
      accepts(
        [{ kind: 'json', schema: true, escaped: '' }],
        '['.repeat(levels) + ']'.repeat(levels),
      );
    expect(deep(20)).toBe(true);
    expect(deep(LIMITS.constraintDepthMax + 1)).toBe(false);
  });

  it.each([
    [{ type: 'object', properties: { a: true, b: true } }, ['{}', '{"a":1}', '{"a": 1, "b": []}']],
    [{ type: 'array', items: { type: 'number' } }, ['[]', '[0, -1.5e+3,10.25]']],
    [{ type: 'string' }, ['"é\\u00e9\\n😀"', '""']],
    [{ type: 'integer', minimum: 7, maximum: 1203 }, ['7', '99', '1000', '1203']],
  ])('takes what fits %j', (schema, texts) => {
    for (const text of texts) expect(accepts(json(schema).slice(0, 1), text), text).toBe(true);
  });

  it.each([
    [{ type: 'object', properties: { a: true } }, ['{"a":1,}', '{"b":1}', '{ "a":1}', '[]']],
    [{ type: 'number' }, ['01', '1.', '.5', '+1', '1e999', 'NaN']],
    [{ type: 'string' }, ['"\n"', '"\\ud83d"', '"\\x"', 'a']],
    [{ type: 'integer', minimum: 7, maximum: 1203 }, ['6', '1204', '007', '-8', '2000']],
  ])('takes nothing that does not fit %j', (schema, texts) => {
    for (const text of texts) expect(accepts(json(schema).slice(0, 1), text), text).toBe(false);
  });

  it('knows every integer of a range', () => {
    const prng = new Prng(7);
    for (let i = 0; i < 60; i++) {
      const low = prng.below(3_000) - 1_500;
      const high = low + prng.below(1_200);
      const range = compileConstraint([
        { kind: 'json', schema: { type: 'integer', minimum: low, maximum: high }, escaped: '' },
      ]);
      for (let n = low - 15; n <= high + 15; n += 1 + prng.below(7)) {
        let position: ReturnType<typeof range.byte> = range.start();
        for (const char of String(n)) {
          position = position && range.byte(position, char.charCodeAt(0));
        }
        expect(position?.isEnd ?? false, `${n} of ${low}..${high}`).toBe(n >= low && n <= high);
      }
    }
  });

  it.each([
    ['pattern', { type: 'string', pattern: '^a' }, '#/pattern'],
    [
      'format',
      { properties: { when: { type: 'string', format: 'date' } } },
      '#/properties/when/format',
    ],
    ['oneOf', { oneOf: [{ type: 'string' }] }, '#/oneOf'],
    ['minimum of number', { type: 'number', minimum: 0 }, '#/minimum'],
    ['a sibling', { anyOf: [{ type: 'null' }], minLength: 3 }, '#/minLength'],
    ['uniqueItems', { type: 'array', uniqueItems: true }, '#/uniqueItems'],
    ['another document', { $ref: 'other.json#/a' }, '#/$ref'],
    ['a missing definition', { $ref: '#/$defs/none' }, '#/$defs/none'],
    ['a word that is no keyword', { type: 'string', maxlen: 3 }, '#/maxlen'],
    ['nothing', { type: 'object', properties: { a: false } }, '#/properties/a'],
    ['an empty range', { type: 'integer', minimum: 3, maximum: 2 }, '#'],
    ['no end', { properties: { a: { $ref: '#' } }, required: ['a'] }, 'comes to an end'],
    ['itself only', { $ref: '#' }, 'comes to an end'],
  ])('refuses %s by name', (_what, schema, named) => {
    const compile = () => compileConstraint(json(schema));
    expect(compile).toThrowError(AppError);
    expect(compile).toThrowError(named);
  });

  it('refuses a form that is too large or nested too deep', () => {
    const names = Array.from({ length: 9_000 }, (_, i) => `value ${i}`);
    expect(() => compileConstraint(json({ enum: names }))).toThrowError(/states/);
    let nested: JsonSchema = { type: 'null' };
    for (let i = 0; i < 300; i++) nested = { type: 'array', items: nested };
    expect(() => compileConstraint(json(nested))).toThrowError(/nested deeper/);
  });

  it('refuses more parts than the bound, also where references repeat them', () => {
    const half = LIMITS.constraintPartsMax / 2;
    const many = new Array<boolean>(half).fill(true);
    const words = Array.from({ length: half }, (_, i) => `a${i % 9}`);
    const schemas: JsonSchema[] = [
      { anyOf: [...many, ...many] },
      { type: 'object', required: [...words, ...words] },
      { type: 'object', properties: Object.fromEntries([...many, ...many].entries()) },
      { type: ['null', ...many.map(() => 'string'), ...many.map(() => 'string')] },
      { type: 'null', enum: [null, ...words, ...words] },
      // The same list under three names.
      {
        anyOf: ['0', '00', '000'].map((name) => ({ $ref: `#/$defs/${name}` })),
        $defs: [{ anyOf: many }] as unknown as JsonSchema,
      },
    ];
    for (const schema of schemas) {
      expect(() => compileConstraint(json(schema))).toThrowError(
        expect.objectContaining({
          code: 'invalid_request',
          message: expect.stringContaining(`has more than ${LIMITS.constraintPartsMax} schemas`),
        }),
      );
    }
    // Repetitions within the bound are no more than one.
    const repeated: JsonSchema = { type: ['object', 'object'], required: words.slice(0, 9_000) };
    const keys = Array.from({ length: 9 }, (_, i) => `"a${i}":0`);
    expect(accepts(json(repeated).slice(0, 1), `{${keys.join()}}`)).toBe(true);
  });
});

it('is refused where a schema doubles the ways to read a text at each byte', () => {
  const list = (level: number) => ({
    type: 'array',
    minItems: 1,
    maxItems: 1,
    items: { $ref: `#/$defs/l${level + 1}` },
  });
  const levels = Array.from({ length: 30 }, (_, i) => [`l${i}`, { anyOf: [list(i), list(i)] }]);
  const $defs = { ...Object.fromEntries(levels), l30: { type: 'null' } } as JsonSchema;
  const constraint = json({ $ref: '#/$defs/l0', $defs });
  expect(() => walk(constraint, new Prng(1))).toThrowError(/too many ways/);
});

describe('free text', () => {
  const free: Constraint = [
    { kind: 'free', without: ['<a>', '</a>', '<ab>'] },
    { kind: 'token', anyOf: [end] },
  ];

  it('holds none of the texts it must not hold', () => {
    const prng = new Prng(8);
    for (let i = 0; i < 20; i++) {
      const text = walk(free, prng, 600);
      if (text === null) continue;
      expect(text.trim()).not.toBe('');
      expect(text).not.toMatch(/<\/?a>|<ab>/);
    }
    for (const text of ['<', 'a<<b', '<<ab', '< a>', '¿qué? <a', '日本']) {
      expect(accepts(free.slice(0, 1), text), text).toBe(true);
    }
    for (const text of ['', ' a', 'x<a>', '<<a>', '<a<ab>', '\u2003x', '<</a>']) {
      expect(accepts(free.slice(0, 1), text), text).toBe(false);
    }
  });
});

describe('masks', () => {
  it('allow exactly the tokens that fit when tried', () => {
    const prng = new Prng(9);
    const everything = new Uint32Array(48).fill(0xffffffff);
    for (let i = 0; i < 12; i++) {
      const run = compileConstraint(json(withDefinitions(randomSchema(prng))));
      const masked = new MaskedAutomaton(run, table);
      let position = masked.start();
      for (let t = 0; t < 25; t++) {
        const allowed = allowedTokens(masked.allowed(position), vocabulary.vocabularySize);
        const tried = allowedTokens(everything, vocabulary.vocabularySize).filter(
          (token) => masked.next(position, token) !== null,
        );
        expect(allowed).toEqual(tried);
        const token = prng.pick(allowed);
        if (token === end) break;
        position = must(masked.next(position, token), 'allowed');
      }
    }
  });

  it('choose among forms', () => {
    const either: Constraint = [
      {
        kind: 'oneOf',
        options: [[{ kind: 'text', text: 'yes' }], [{ kind: 'text', text: 'yellow' }]],
      },
      { kind: 'token', anyOf: [end] },
    ];
    const prng = new Prng(10);
    const texts = new Set(Array.from({ length: 60 }, () => walk(either, prng)));
    expect([...texts].sort()).toEqual(['yellow', 'yes']);
  });
});
