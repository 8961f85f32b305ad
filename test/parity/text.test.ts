/**
 * Tokenizers and chat templates against transformers: ids of plain strings, and rendered text and
 * ids of conversations. Added tokens that a message, tool or argument spells must come out as text;
 * scripts/parity/parity_conversations.py says how the expected ids are made.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ManualClock } from '../../core/clock.ts';
import { packageRoot } from '../../core/paths.ts';
import type { ToolSpec } from '../../core/ports.ts';
import { loadChatTemplate } from '../../core/text/chat-template.ts';
import { loadTokenizer } from '../../core/text/tokenizer.ts';
import type { ChatMessage } from '../../core/text/types.ts';
import { fixtureNames, fixtureRoot, readFixture } from './fixtures.ts';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-parity-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe.each(fixtureNames('tokenizers'))('tokenizer %s', (name) => {
  const strings = readFixture<{ text: string; ids: number[]; decoded: string }[]>(
    'tokenizers',
    name,
    'strings.json',
  );

  test('ids of plain strings', () => {
    const tokenizer = loadTokenizer(join(fixtureRoot, 'tokenizers', name));
    for (const { text, ids } of strings) {
      expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(ids);
    }
  });

  test('decoded text', () => {
    const tokenizer = loadTokenizer(join(fixtureRoot, 'tokenizers', name));
    for (const { text, ids, decoded } of strings) {
      // transformers takes away the blank that a SentencePiece tokenizer puts before a text; ours
      // cannot know whether a text begins or goes on.
      const ours = tokenizer.decode(ids);
      expect([decoded, ` ${decoded}`], JSON.stringify(text)).toContain(ours);
    }
  });
});

interface FixtureMessage {
  role: ChatMessage['role'];
  content: string | null;
  tool_calls?: { id: string; function: { name: string; arguments: unknown } }[];
  tool_call_id?: string;
  name?: string;
}

interface Conversations {
  template: string;
  tokenizer: string;
  now: string;
  cases: {
    messages: FixtureMessage[];
    tools: ToolSpec[] | null;
    add_generation_prompt: boolean;
    text: string;
    ids: number[];
  }[];
}

describe.each(fixtureNames('conversations'))('conversations %s', (file) => {
  const given = readFixture<Conversations>('conversations', file);

  test(`rendered text and ids of ${given.cases.length}`, () => {
    const directory = join(folder, file);
    cpSync(join(fixtureRoot, 'tokenizers', given.tokenizer), directory, { recursive: true });
    const source = join(packageRoot, 'scripts', 'parity', 'templates', `${given.template}.jinja`);
    cpSync(source, join(directory, 'chat_template.jinja'));
    const clock = new ManualClock(new Date(given.now).getTime());
    const tokenizer = loadTokenizer(directory);
    const template = loadChatTemplate(directory, tokenizer, clock);
    for (const {
      messages,
      tools,
      add_generation_prompt: generationPrompt,
      text,
      ids,
    } of given.cases) {
      const rendered = template.render(messages.map(chatMessage), tools ?? [], {
        generationPrompt,
      });
      expect(rendered.text.replaceAll(rendered.guard, '')).toBe(text);
      expect(template.encode(rendered), text).toEqual(ids);
    }
  });
});

test('there are enough conversations', () => {
  const counts = fixtureNames('conversations').map(
    (file) => readFixture<Conversations>('conversations', file).cases.length,
  );
  expect(counts.reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(200);
});

function chatMessage({ role, content, name, tool_calls: calls, tool_call_id: id }: FixtureMessage) {
  const message: ChatMessage = { role, content };
  if (name !== undefined) message.name = name;
  if (id !== undefined) message.toolCallId = id;
  if (calls !== undefined) {
    message.toolCalls = calls.map((call) => ({
      id: call.id,
      name: call.function.name,
      arguments: JSON.stringify(call.function.arguments),
    }));
  }
  return message;
}
