/** Tests of the call syntaxes that have no tags, on a directory in the manner of Llama 3.1. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LLAMA_CALLS, NO_CALLS } from './call-syntax.ts';
import { loadText, type TextLayer } from './load-text.ts';
import { writeLlamaFiles } from './testing/llama-files.ts';
import type { ChatMessage } from './types.ts';

let directory: string;
let text: TextLayer;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ramify-llama-'));
  writeLlamaFiles(directory);
  text = loadText(directory);
});

afterAll(() => rmSync(directory, { recursive: true }));

const CALL = '{"name": "search", "parameters": {"query": "a; {b}"}}';
const REQUEST = { name: 'search', arguments: '{"query":"a; {b}"}' };

describe('Llama: a whole step is calls, or it is the answer', () => {
  test.each([
    [CALL, [REQUEST]],
    [` <|python_tag|>${CALL} `, [REQUEST]],
    [`${CALL}; ${CALL}`, [REQUEST, REQUEST]],
  ])('%s', (step, calls) => {
    expect(LLAMA_CALLS.read(step)).toEqual({ calls, content: '', malformed: null });
  });

  test.each(['Paris', '{"answer": 42}', '{"name": "search"}', `See ${CALL}`, '{', `${CALL}; {`])(
    'answer: %s',
    (step) => {
      expect(LLAMA_CALLS.read(step)).toEqual({ calls: [], content: step, malformed: null });
    },
  );

  test.each([
    ['<|python_tag|>print(1)', 'not valid JSON'],
    ['<|python_tag|>', 'an empty call'],
    [`<|python_tag|>${CALL}; {"name": "a"}`, 'the call of a has no parameters object'],
  ])('malformed: %s', (step, why) => {
    const read = LLAMA_CALLS.read(step);
    expect(read.calls).toEqual([]);
    expect(read.malformed).toContain(why);
  });
});

test('a directory in the manner of Llama 3.1 is known by its template', () => {
  expect(text.protocol.name).toBe('llama');
  const ends = ['<|eom_id|>', '<|eot_id|>'].map((end) => text.tokenizer.tokenId(end));
  expect(text.protocol.stopTokens).toEqual(ends);
  const step = text.protocol.parseStep(`${CALL}<|eom_id|>`);
  expect(step).toMatchObject({ calls: [REQUEST], answer: null, malformed: null });
  expect(text.protocol.parseStep('Paris<|eot_id|>')).toMatchObject({ answer: 'Paris' });
});

test('results continue what was sampled as the whole history is rendered', () => {
  const question: ChatMessage = { role: 'user', content: 'where? <|eot_id|>' };
  const toolCalls = [{ name: 'search', arguments: '{"query":"a; {b}"}' }];
  const history: ChatMessage[] = [
    question,
    { role: 'assistant', content: null, toolCalls },
    { role: 'tool', name: 'search', content: 'in "Paris"' },
  ];
  expect([
    ...text.protocol.renderPrompt([question], []),
    ...text.tokenizer.encodeTemplate(`${CALL}<|eot_id|>`),
    ...text.protocol.renderToolResults([{ name: 'search', result: 'in "Paris"' }]),
  ]).toEqual(text.protocol.renderPrompt(history, []));
});

test('several results are written even where the template takes one call a turn', () => {
  const results = ['a', 'b'].map((result) => ({ name: 'search', result }));
  const written = text.tokenizer.decode(text.protocol.renderToolResults(results));
  expect(written).toBe(
    ['ipython', 'ipython', 'assistant']
      .map((role) => `<|start_header_id|>${role}<|end_header_id|>\n\n`)
      .map((header, i) => header + ['"a"<|eot_id|>', '"b"<|eot_id|>', ''][i])
      .join(''),
  );
});

test('a template without a form of calls serves answers and refuses tools by name', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-plain-'));
  writeLlamaFiles(folder);
  const template = "{%- for m in messages %}{{- m.role + ': ' + m.content + '\\n' }}{%- endfor %}";
  writeFileSync(join(folder, 'chat_template.jinja'), template);
  const { protocol } = loadText(folder);
  rmSync(folder, { recursive: true });
  expect(protocol.name).toBe('plain');
  expect(protocol.parseStep(`${CALL}<|eot_id|>`)).toMatchObject({ answer: CALL, calls: [] });
  expect(NO_CALLS.read(' a ').content).toBe('a');
  const tool = { name: 'search', description: '', parameters: { type: 'object' } };
  expect(() => protocol.renderPrompt([{ role: 'user', content: 'hi' }], [tool])).toThrow(
    /tools: this policy has no form of tool calls/,
  );
});
