/**
 * Demanded forms in every protocol: what a policy that knows nothing writes under the masks is read
 * back by the protocol as a call that fits the function's schema, or as an answer that fits its
 * schema.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { must } from '../assert.ts';
import type { ToolSpec } from '../ports.ts';
import { Prng } from '../prng.ts';
import { loadText, type TextLayer } from './load-text.ts';
import { walkConstraint } from './testing/constraint-walk.ts';
import { writeQwenFiles } from './testing/qwen-files.ts';
import { randomObjectSchema, randomSchema, withDefinitions } from './testing/random-schema.ts';
import { tokenBytesOf, TokenTable } from './token-mask.ts';
import type { AnswerForm, ParsedStep } from './types.ts';

const ajv = new Ajv2020({ strict: false });
const layers = new Map<string, { text: TextLayer; table: TokenTable }>();
const directories: string[] = [];

function addLayer(name: string, directory: string): void {
  const text = loadText(directory);
  layers.set(name, { text, table: new TokenTable(tokenBytesOf(text.tokenizer)) });
}

beforeAll(() => {
  addLayer('tags', join(import.meta.dirname, '../../policies/embedded'));
  for (const protocol of ['hermes', 'llama', 'plain']) {
    const directory = mkdtempSync(join(tmpdir(), `ramify-form-${protocol}-`));
    directories.push(directory);
    writeQwenFiles(directory);
    writeFileSync(join(directory, 'ramify.json'), JSON.stringify({ protocol }));
    addLayer(protocol, directory);
  }
});
afterAll(() => {
  for (const directory of directories) rmSync(directory, { recursive: true });
});

const tool = (name: string, parameters: Record<string, unknown>): ToolSpec => ({
  name,
  description: '',
  parameters,
});

/** What the protocol reads in what the walk wrote; null when the walk did not end. */
function writeAndRead(
  protocol: string,
  form: AnswerForm,
  prng: Prng,
  context = '',
): ParsedStep | null {
  const { text, table } = must(layers.get(protocol), protocol);
  const constraint = text.protocol.constrain(form, context);
  const { stopTokens } = text.protocol;
  const tokens = walkConstraint(constraint, table, { prng, ends: stopTokens, tokensMax: 2_000 });
  if (tokens === null) return null;
  const parsed = text.protocol.parseStep(text.tokenizer.decode(tokens));
  expect(parsed.malformed, text.tokenizer.decode(tokens)).toBeNull();
  return parsed;
}

describe.each(['hermes', 'llama'])('calls of %s', (protocol) => {
  it('fit their schema, and are calls of the function that was named', () => {
    const prng = new Prng(31);
    for (let i = 0; i < 40; i++) {
      const parameters = withDefinitions(randomObjectSchema(prng, 2));
      const form = { calls: [tool('look_up', parameters)], answer: null };
      const parsed = must(writeAndRead(protocol, form, prng), 'it ends');
      expect(parsed.calls).toHaveLength(1);
      expect(parsed.calls[0]?.name).toBe('look_up');
      const value: unknown = JSON.parse(parsed.calls[0]?.arguments ?? '');
      expect(ajv.validate(parameters, value), JSON.stringify(parameters)).toBe(true);
    }
  });

  it('are of one of several functions, or are an answer where that is allowed', () => {
    const prng = new Prng(32);
    const calls = [tool('a', {}), tool('b_2', { properties: { n: { type: 'integer' } } })];
    const answer = { type: 'array', items: { type: 'boolean' }, maxItems: 2 };
    const seen = new Set<string>();
    for (let i = 0; i < 60; i++) {
      const parsed = writeAndRead(protocol, { calls, answer }, prng);
      if (parsed === null) continue;
      if (parsed.answer !== null)
        expect(ajv.validate(answer, JSON.parse(parsed.answer))).toBe(true);
      seen.add(parsed.calls[0]?.name ?? 'answer');
    }
    expect([...seen].sort()).toEqual(['a', 'answer', 'b_2']);
  });

  it('are refused when their arguments are no object', () => {
    const { text } = must(layers.get(protocol), protocol);
    const form = { calls: [tool('f', { type: 'string' })], answer: null };
    expect(() => text.protocol.constrain(form, '')).toThrowError(/f cannot be demanded/);
  });
});

describe.each(['tags', 'hermes', 'llama', 'plain'])('JSON answers of %s', (protocol) => {
  it('fit their schema, thought left open by the prompt or not', () => {
    const prng = new Prng(33);
    for (let i = 0; i < 30; i++) {
      const schema = withDefinitions(randomSchema(prng, 2));
      const context = i % 2 === 0 ? '<|im_start|>assistant\n' : 'assistant\n<think>\n';
      const form = { calls: [], answer: schema };
      const parsed = must(
        writeAndRead(protocol, form, prng, protocol === 'tags' ? '' : context),
        'ends',
      );
      const value: unknown = JSON.parse(must(parsed.answer, 'an answer'));
      expect(ajv.validate(schema, value), `${JSON.stringify(schema)} ${parsed.answer}`).toBe(true);
    }
  });
});

describe('calls by tags', () => {
  const constrain = (parameters: Record<string, unknown>, name = 'search') =>
    must(layers.get('tags'), 'tags').text.protocol.constrain(
      { calls: [tool(name, parameters)], answer: null },
      '',
    );

  it('are bodies that can be read back', () => {
    const prng = new Prng(34);
    let ended = 0;
    for (let i = 0; i < 25; i++) {
      const parameters = {
        type: 'object',
        properties: { query: { type: 'string' } },
        required: ['query'],
      };
      const form = { calls: [tool('search', parameters)], answer: null };
      const parsed = writeAndRead('tags', form, prng);
      if (parsed === null) continue;
      ended++;
      expect(parsed.calls[0]?.name).toBe('search');
      expect(ajv.validate(parameters, JSON.parse(parsed.calls[0]?.arguments ?? ''))).toBe(true);
    }
    expect(ended).toBeGreaterThan(5);
  });

  it('are one of the texts of an enum', () => {
    const query = { enum: ['rome', ' padded', '<result>', 7, 'two words'] };
    const prng = new Prng(35);
    const seen = new Set<string>();
    for (let i = 0; i < 20; i++) {
      const form = { calls: [tool('search', { properties: { query } })], answer: null };
      seen.add(must(writeAndRead('tags', form, prng), 'ends').calls[0]?.arguments ?? '');
    }
    expect([...seen].sort()).toEqual(['{"query":"rome"}', '{"query":"two words"}']);
  });

  it.each([
    ['another required argument', { required: ['query', 'limit'] }, /'limit' is required/],
    [
      'a bound on the text',
      { properties: { query: { type: 'string', maxLength: 3 } } },
      /maxLength/,
    ],
    ['a number', { properties: { query: { type: 'integer' } } }, /with a string/],
    ['no such argument', { properties: {}, additionalProperties: false }, /do not allow/],
    ['values that no body can be', { properties: { query: { const: 1 } } }, /no value of 'query'/],
  ])('refuse %s', (_what, parameters, message) => {
    expect(() => constrain(parameters)).toThrowError(message);
  });

  it('refuse a tool without a tag', () => {
    expect(() => constrain({}, 'weather')).toThrowError(/no tag for weather/);
  });
});
