/** Tests of choosing a protocol from a policy directory, and of what broken ones say. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { must } from '../assert.ts';
import { writeEmbeddedTextFiles } from './embedded-text-files.ts';
import { loadText } from './load-text.ts';
import { QWEN_TEMPLATE, writeQwenFiles } from './testing/qwen-files.ts';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ramify-text-'));
});

afterEach(() => rmSync(directory, { recursive: true }));

const EMBEDDED = { texts: ['what is the capital'], vocabularySize: 300, tools: ['search'] };

const write = (name: string, value: unknown): void =>
  writeFileSync(join(directory, name), typeof value === 'string' ? value : JSON.stringify(value));

test('a template with <tool_call> means hermes, ramify.json decides over it', () => {
  writeQwenFiles(directory);
  expect(loadText(directory).protocol.name).toBe('hermes');
  write('ramify.json', { protocol: 'hermes' });
  expect(loadText(directory).protocol.name).toBe('hermes');
});

test('the embedded files say tags; writing twice gives equal bytes', () => {
  expect(writeEmbeddedTextFiles(directory, EMBEDDED).protocol.name).toBe('tags');
  const files = [
    'tokenizer.json',
    'tokenizer_config.json',
    'generation_config.json',
    'ramify.json',
  ];
  const read = (): string[] => files.map((name) => readFileSync(join(directory, name), 'utf8'));
  const first = read();
  writeEmbeddedTextFiles(directory, EMBEDDED);
  expect(read()).toEqual(first);
});

test('a tokenizer with more ids than the model embeds is refused, with fewer it is not', () => {
  const { tokenizer } = writeEmbeddedTextFiles(directory, EMBEDDED);
  const size = tokenizer.vocabularySize;
  write('config.json', { vocab_size: size - 1 });
  expect(() => loadText(directory)).toThrow(`ids up to ${size - 1}, but the model embeds`);
  for (const rows of [size, size + 64]) {
    write('config.json', { vocab_size: rows });
    expect(loadText(directory).tokenizer.vocabularySize).toBe(size);
  }
});

test.each(['generation_config.json', 'config.json'])(
  'an end of turn in %s that the model has not is refused, one without a text leaves no trace',
  (name) => {
    const { tokenizer } = writeEmbeddedTextFiles(directory, EMBEDDED);
    const size = tokenizer.vocabularySize;
    const ends = [size + 63, must(tokenizer.tokenId('<|im_end|>'), 'end')];
    const state = (rows: number) => {
      write('config.json', { vocab_size: rows });
      write(name, { ...(name === 'config.json' && { vocab_size: rows }), eos_token_id: ends });
    };
    state(size + 63);
    expect(() => loadText(directory)).toThrow(
      expect.objectContaining({
        code: 'policy_invalid',
        message:
          `${join(directory, name)}: eos_token_id ${size + 63} is none of the model's ` +
          `${size + 63} token ids`,
      }),
    );
    state(size + 64);
    const { protocol } = loadText(directory);
    expect(protocol.stopTokens).toEqual(expect.arrayContaining(ends));
    const text = '<answer>\\boxed{4}</answer><|im_end|>';
    expect(protocol.parseStep(text)).toMatchObject({ answer: '4', malformed: null });
    const next = protocol.renderContinuation({ text, calls: [] }, [
      { role: 'user', content: 'on' },
    ]);
    expect(tokenizer.decode(must(next, 'the template shows its ends'))).toBe(
      '\n<|im_start|>user\non<|im_end|>\n<|im_start|>assistant\n',
    );
  },
);

test('a turn that padding did not end is cut at the end that has a text', () => {
  writeQwenFiles(directory);
  const padding = loadText(directory).tokenizer.vocabularySize;
  write('config.json', { vocab_size: padding + 1, eos_token_id: padding });
  const { protocol, tokenizer } = loadText(directory);
  expect(protocol.parseStep('Paris<|im_end|>').answer).toBe('Paris');
  const results = protocol.renderToolResults([{ name: 'search', result: 'x' }]);
  expect(tokenizer.decode(results)).toMatch(/^\n<\|im_start\|>user/);
});

test('a tool of one’s own names its argument', () => {
  const tools = [{ name: 'lookup', argument: 'key' }];
  const { protocol } = writeEmbeddedTextFiles(directory, { ...EMBEDDED, tools });
  expect(protocol.parseStep('<lookup>x</lookup>').calls).toEqual([
    { name: 'lookup', arguments: '{"key":"x"}' },
  ]);
});

test('templates are taken from tokenizer_config.json too, by name', () => {
  writeQwenFiles(directory);
  rmSync(join(directory, 'chat_template.jinja'));
  const named = [
    { name: 'rag', template: 'x' },
    { name: 'default', template: QWEN_TEMPLATE },
  ];
  write('tokenizer_config.json', { eos_token: '<|im_end|>', chat_template: named });
  expect(loadText(directory).protocol.name).toBe('hermes');
});

test.each<[string, () => void, string]>([
  ['no template', () => rmSync(join(directory, 'chat_template.jinja')), 'has no chat_template'],
  [
    'a template that does not parse',
    () => write('chat_template.jinja', '{% if %}'),
    'does not parse',
  ],
  ['an unknown protocol', () => write('ramify.json', { protocol: 'xml' }), '"xml" is none of'],
  ['broken ramify.json', () => write('ramify.json', '{'), 'ramify.json: is not valid JSON'],
  ['tags without tools', () => write('ramify.json', { protocol: 'tags' }), 'tools is not a list'],
  [
    'a tag that is no token',
    () => write('ramify.json', { protocol: 'tags', tools: ['search'] }),
    'the tag <think> is not a token',
  ],
  [
    'a taken tag',
    () => write('ramify.json', { protocol: 'tags', tools: [{ name: 'think', argument: 'x' }] }),
    'the tag think is taken',
  ],
  [
    'a tool without argument',
    () => write('ramify.json', { protocol: 'tags', tools: ['weather'] }),
    'weather does not name its argument',
  ],
  [
    'a tool name that is no tag',
    () => write('ramify.json', { protocol: 'tags', tools: ['a|b'] }),
    'no tool name',
  ],
  ['no end of turn', () => write('tokenizer_config.json', {}), 'no end-of-turn token'],
  [
    'an odd end of turn',
    () => write('config.json', { eos_token_id: 'x' }),
    'eos_token_id holds "x"',
  ],
  [
    'no end of turn but padding',
    () => {
      write('tokenizer_config.json', {});
      write('config.json', { vocab_size: 1e6, eos_token_id: 999_999 });
    },
    'no end-of-turn token with a text: the tokenizer has none for 999999',
  ],
  [
    'a template without tool results',
    () => write('chat_template.jinja', '<|im_end|>{# <tool_call> #}{{ messages | length }}'),
    'does not write tool results',
  ],
  [
    'a template that fails',
    () => write('chat_template.jinja', '<tool_call>{{ messages | nofilter }}'),
    'the chat template failed',
  ],
])('%s is policy_invalid', (_name, breakIt, message) => {
  writeQwenFiles(directory);
  breakIt();
  expect(() => loadText(directory)).toThrow(
    expect.objectContaining({
      code: 'policy_invalid',
      message: expect.stringMatching(new RegExp(`^${directory}.*${message}`, 's')),
    }),
  );
});
