/**
 * Tests of what a chat client sees of a policy's text: the same, however the text is cut into
 * pieces.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { writeEmbeddedTextFiles } from '../core/text/embedded-text-files.ts';
import { loadText } from '../core/text/load-text.ts';
import type { TextLayer } from '../core/text/load-text.ts';
import { writeLlamaFiles } from '../core/text/testing/llama-files.ts';
import { writeQwenFiles } from '../core/text/testing/qwen-files.ts';
import { ChatText, hiddenTokens, reasoningTokens } from './chat-text.ts';
import type { TextPiece } from './chat-text.ts';

let folder: string;
let tags: TextLayer;
let hermes: TextLayer;
let llama: TextLayer;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-chat-text-'));
  tags = writeEmbeddedTextFiles(folder, { texts: ['x'], vocabularySize: 300, tools: ['search'] });
  writeQwenFiles(folder);
  rmSync(join(folder, 'ramify.json'));
  hermes = loadText(folder);
  rmSync(join(folder, 'chat_template.jinja'));
  writeLlamaFiles(folder);
  llama = loadText(folder);
});

afterAll(() => rmSync(folder, { recursive: true }));

interface Shown {
  reasoning: string;
  content: string;
  /** Before the step was whole. */
  early: TextPiece;
}

function show(layer: TextLayer, text: string, pieceChars: number, options = {}): Shown {
  const {
    stops = [],
    reasoningOpen = false,
    callsTaken = false,
  } = options as {
    stops?: string[];
    reasoningOpen?: boolean;
    callsTaken?: boolean;
  };
  const view = new ChatText(layer.protocol, { stops, reasoningOpen });
  const early: TextPiece = { reasoning: '', content: '' };
  for (let at = 0; at < text.length; at += pieceChars) {
    const piece = view.push(text.slice(at, at + pieceChars));
    early.reasoning += piece.reasoning;
    early.content += piece.content;
  }
  const rest = view.finish(layer.protocol.parseStep(text), callsTaken);
  return {
    early,
    reasoning: early.reasoning + rest.reasoning,
    content: early.content + rest.content,
  };
}

const CALL = '<tool_call>\n{"name": "search", "arguments": {"query": "x"}}\n</tool_call>';

test.each([1, 3, 7, 1000])('tag protocol, pieces of %i characters', (chars) => {
  const answered = '<think> I know. </think>\n<answer>It is \\boxed{Paris}.</answer>';
  expect(show(tags, answered, chars)).toMatchObject({ reasoning: 'I know.', content: 'Paris' });
  expect(show(tags, answered, chars).early).toEqual({ reasoning: 'I know.', content: '' });
  const called = '<think>a</think><search>b</search>';
  expect(show(tags, called, chars, { callsTaken: true }).content).toBe('');
  expect(show(tags, called, chars).content).toBe('<search>b</search>');
  expect(show(tags, '<think>cut sho', chars)).toMatchObject({ reasoning: 'cut sho', content: '' });
  expect(show(tags, 'just text', chars)).toMatchObject({ reasoning: '', content: 'just text' });
  const unboxed = '<think>a</think><answer>Paris</answer>';
  expect(show(tags, unboxed, chars).content).toBe('Paris');
  expect(show(tags, answered, chars, { stops: ['is'] }).content).toBe('<answer>It');
});

test.each([1, 3, 7, 1000])('Hermes protocol, pieces of %i characters', (chars) => {
  expect(show(hermes, ' It is Paris. ', chars)).toMatchObject({ content: 'It is Paris.' });
  expect(show(hermes, 'It is Paris.', chars).early.content).toBe('It is Paris.');
  const called = `Let me look.\n${CALL}`;
  expect(show(hermes, called, chars, { callsTaken: true })).toMatchObject({
    early: { content: 'Let me look.' },
    content: 'Let me look.',
  });
  expect(show(hermes, called, chars).content).toBe(called);
  const malformed = 'Hm. <tool_call>\n{"name": }\n</tool_call>';
  expect(show(hermes, malformed, chars).content).toBe(malformed);
  const thought = '<think>\nhm\n</think>\n\nParis';
  expect(show(hermes, thought, chars)).toMatchObject({ reasoning: 'hm', content: 'Paris' });
  expect(show(hermes, 'hm</think>Paris', chars, { reasoningOpen: true })).toMatchObject({
    reasoning: 'hm',
    content: 'Paris',
  });
  expect(show(hermes, 'a < b <tool', chars).content).toBe('a < b <tool');
});

test.each([1, 3, 7, 1000])('Llama calls, pieces of %i characters', (chars) => {
  const call = '{"name": "search", "parameters": {"query": "x"}}';
  expect(show(llama, call, chars, { callsTaken: true }).content).toBe('');
  const tagged = ` <|python_tag|>${call}`;
  expect(show(llama, tagged, chars, { callsTaken: true }).content).toBe('');
  expect(show(llama, '{"answer": 42}', chars)).toMatchObject({
    early: { content: '' },
    content: '{"answer": 42}',
  });
  const prose = `In JSON: ${call}`;
  expect(show(llama, prose, chars)).toMatchObject({ early: { content: prose }, content: prose });
});

test('end-of-turn tokens are hidden, tags are not', () => {
  const text = (layer: TextLayer): string[] =>
    hiddenTokens(layer.protocol, layer.tokenizer).map((token) => layer.tokenizer.decode([token]));
  expect(text(tags).sort()).toEqual(['<|endoftext|>', '<|im_end|>']);
  expect(text(hermes)).toContain('<|im_end|>');
});

test.each([
  ['<think>a b</think>Paris<|im_end|>', false, '<think>a b</think>'],
  ['  <think>a</think>', false, '  <think>a</think>'],
  ['a b</think>Paris', true, 'a b</think>'],
  ['<think>cut off', false, '<think>cut off'],
  ['cut off', true, 'cut off'],
  ['Paris <think>no</think>', false, ''],
  ['<thanks>no</think>', false, ''],
  ['', false, ''],
])('the thoughts of %j, begun before: %s', (text, reasoningOpen, thoughts) => {
  const { tokenizer } = hermes;
  const tokens = Uint32Array.from(tokenizer.encodeTemplate(text));
  const count = reasoningTokens(tokens, tokenizer, reasoningOpen);
  const [within, before] = [tokens.subarray(0, count), tokens.subarray(0, count - 1)];
  expect(tokenizer.decode(within).startsWith(thoughts)).toBe(true);
  if (count > 0) expect(tokenizer.decode(before).startsWith(thoughts)).toBe(false);
  else expect(thoughts).toBe('');
});
