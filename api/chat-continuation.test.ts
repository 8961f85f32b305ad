/**
 * Multi-step conversations through OpenAI's own client: a request whose history ends with a logged
 * answer goes on from its stored tokens, and every other history is a new segment.
 */
import { cpSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { serve } from '@hono/node-server';
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { StepRecord, TrajectoryRecord } from '../core/records.ts';
import { loadText } from '../core/text/load-text.ts';
import type { TextLayer } from '../core/text/load-text.ts';
import { startHarness } from './testing/harness.ts';
import type { Harness, HarnessOptions } from './testing/harness.ts';

type Message = OpenAI.ChatCompletionMessageParam;
type Body = Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>;

let h: Harness;
let server: Server;
let client: OpenAI;
let text: TextLayer;

async function listen(options: HarnessOptions): Promise<void> {
  h = await startHarness(options);
  h.engine.script = SCRIPT;
  server = serve({ fetch: h.app.fetch, hostname: '127.0.0.1', port: 0 }) as Server;
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'any', maxRetries: 0 });
  text = loadText(h.deps.stores.policies.get(1).path);
}

async function close(): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await closed;
  await h.close();
}

beforeEach(() => listen({ protocol: 'tags' }));
afterEach(close);

async function relisten(options: HarnessOptions): Promise<void> {
  await close();
  await listen(options);
}

/** Two searches, then the answer; a further question is answered at once. */
const SCRIPT = (prompt: string): string => {
  const results = prompt.split('<result>').length - 1;
  if (prompt.includes('Why?')) return '<think>why</think><answer>\\boxed{so}</answer><|im_end|>';
  if (results === 2)
    return '<think>both said Paris</think><answer>\\boxed{Paris}</answer><|im_end|>';
  return `<think>search ${results}</think><search>capital of France ${results}</search>`;
};
const HERMES_SCRIPT = (prompt: string): string =>
  prompt.includes('<tool_response>')
    ? '<think>read</think>Paris<|im_end|>'
    : ['a', 'b']
        .map((q) => `<tool_call>\n{"name": "search", "arguments": {"query": "${q}"}}\n</tool_call>`)
        .join('\n')
        .concat('<|im_end|>');

const QUESTION: Message = { role: 'user', content: 'What is the capital of France?' };
const tools: OpenAI.ChatCompletionTool[] = [
  { type: 'function', function: { name: 'search', parameters: { type: 'object' } } },
];

interface Reply {
  message: OpenAI.ChatCompletionMessage;
  calls: OpenAI.ChatCompletionMessageFunctionToolCall[];
  usage: OpenAI.CompletionUsage | undefined;
  version: number;
  trajectory: TrajectoryRecord;
  steps: StepRecord[];
  /** What the engine's sequence held when it sampled this reply. */
  promptTokens: readonly number[];
}

async function ask(
  messages: Message[],
  body: Body = {},
  options: { stream?: boolean; session?: string } = {},
): Promise<Reply> {
  const request = { model: 'ramify', messages, tools, ...body, stream: false as const };
  const headers = options.session === undefined ? {} : { 'x-session-id': options.session };
  let completion: OpenAI.ChatCompletion;
  let response: Response;
  if (options.stream === true) {
    const runner = client.chat.completions.stream({ ...request, stream: true }, { headers });
    completion = await runner.finalChatCompletion();
    const [newest] = h.deps.stores.trajectories.list().items;
    response = new Response(null, { headers: { 'x-ramify-trajectory': newest?.id ?? '' } });
  } else {
    const call = client.chat.completions.create(request, { headers });
    ({ data: completion, response } = await call.withResponse());
  }
  const [id = ''] = (response.headers.get('x-ramify-trajectory') ?? '').split(', ');
  const message = completion.choices[0]?.message as OpenAI.ChatCompletionMessage;
  return {
    message,
    calls: (message.tool_calls ?? []) as OpenAI.ChatCompletionMessageFunctionToolCall[],
    usage: completion.usage,
    version: Number(completion.model.split('@')[1]),
    ...h.deps.stores.trajectories.get(id),
    promptTokens: h.engine.promptTokens,
  };
}

const result = (call: { id: string } | undefined, content: string): Message => ({
  role: 'tool',
  tool_call_id: call?.id ?? '',
  content,
});

/** The assistant's message as a client that keeps no thoughts sends it back. */
function plain(reply: Reply): Message {
  const { content, tool_calls } = reply.message;
  return { role: 'assistant', content, ...(tool_calls && { tool_calls }) };
}

const tokensOf = (steps: readonly StepRecord[]): number[] =>
  steps.flatMap((step) => [...step.tokens]);
const kinds = (steps: readonly StepRecord[]): string => steps.map(({ kind }) => kind).join(' ');
const isSpliced = (before: Reply, after: Reply): boolean =>
  after.steps[0]?.id === before.steps[0]?.id;

describe.each([{ stream: false }, { stream: true }])('two tool steps, $stream streamed', (way) => {
  test('the sequence holds exactly the stored tokens and the results', async () => {
    const first = await ask([QUESTION], {}, way);
    const history = [QUESTION, plain(first), result(first.calls[0], 'It is Paris.')];
    const second = await ask(history, {}, way);
    history.push(plain(second), result(second.calls[0], 'Paris again.'));
    const third = await ask(history, {}, way);

    expect(third.message.content).toBe('Paris');
    expect(kinds(third.steps)).toBe('prompt policy tool policy tool policy');
    const rendered = (said: string): number[] =>
      text.protocol.renderToolResults([{ name: 'search', result: said }]);
    expect(second.promptTokens).toEqual([...tokensOf(first.steps), ...rendered('It is Paris.')]);
    expect(third.promptTokens).toEqual([...tokensOf(second.steps), ...rendered('Paris again.')]);
    expect(text.tokenizer.decode(third.promptTokens)).toContain('<think>search 0</think>');
    // One forest: the prefix is stored once, each trajectory is a leaf further down.
    expect(third.steps.slice(0, 4)).toEqual(second.steps);
    expect(second.steps.slice(0, 2)).toEqual(first.steps);
    expect(third.steps[2]?.toolCall).toMatchObject({
      id: first.calls[0]?.id,
      name: 'search',
      arguments: '{"query":"capital of France 0"}',
      result: 'It is Paris.',
      error: null,
      served: 'client',
    });
    const tree = h.deps.stores.trajectories.tree(first.trajectory.id);
    expect(tree.steps).toHaveLength(6);
    expect(tree.trajectories.map(({ id }) => id)).toEqual(
      [first, second, third].map(({ trajectory }) => trajectory.id),
    );
    expect(third.trajectory).toMatchObject({ toolCalls: 2, formatOk: true, answer: 'Paris' });
    // H_init is the first policy step's, however many requests the path took.
    const [H, start] = [third.steps[5]?.stepEntropy, third.steps[1]?.stepEntropy];
    expect(third.steps[5]?.deltaEntropy).toBeCloseTo((H as number) - (start as number), 9);
  });
});

test('usage counts the whole prompt and the tokens of this answer', async () => {
  const first = await ask([QUESTION]);
  const second = await ask([QUESTION, plain(first), result(first.calls[0], 'x')]);
  expect(second.usage?.prompt_tokens).toBe(second.promptTokens.length);
  expect(second.usage?.completion_tokens).toBe(second.steps.at(-1)?.tokens.length);
});

test('streamed and plain continuations leave equal rows', async () => {
  const rows: unknown[] = [];
  for (const stream of [false, true]) {
    const first = await ask([QUESTION], { seed: 3 }, { stream });
    const next = [QUESTION, plain(first), result(first.calls[0], 'Paris')];
    const { steps, trajectory } = await ask(next, { seed: 3 }, { stream });
    const { endReason, formatOk, sampledTokens, toolCalls } = trajectory;
    rows.push([
      { endReason, formatOk, sampledTokens, toolCalls },
      steps.map(({ kind, tokens, logprobs, entropies, deltaEntropy, text, index }) => ({
        ...{ kind, tokens, logprobs, entropies, deltaEntropy, text, index },
      })),
    ]);
  }
  expect(rows[0]).toEqual(rows[1]);
});

test('results are matched by id and rendered in the order of the calls', async () => {
  await relisten({ protocol: 'hermes' });
  h.engine.script = HERMES_SCRIPT;
  const first = await ask([QUESTION]);
  const [a, b] = first.calls;
  const second = await ask([QUESTION, plain(first), result(b, 'of b'), result(a, 'of a')]);
  expect(kinds(second.steps)).toBe('prompt policy tool tool policy');
  expect(second.steps.slice(2, 4).map(({ toolCall }) => [toolCall?.id, toolCall?.result])).toEqual([
    [a?.id, 'of a'],
    [b?.id, 'of b'],
  ]);
  const results = ['of a', 'of b'].map((said) => ({ name: 'search', result: said }));
  expect(second.promptTokens).toEqual([
    ...tokensOf(first.steps),
    ...text.protocol.renderToolResults(results),
  ]);
});

test.each(['tags', 'hermes'] as const)(
  'a further question goes on behind the answer, thoughts included: %s',
  async (protocol) => {
    await relisten({ protocol });
    h.engine.script = () =>
      protocol === 'tags'
        ? '<think>I know</think><answer>\\boxed{Paris}</answer><|im_end|>'
        : '<think>I know</think>Paris<|im_end|>';
    const first = await ask([QUESTION]);
    expect(first.message.content).toBe('Paris');
    const second = await ask([QUESTION, plain(first), { role: 'user', content: 'Why?' }]);
    expect(kinds(second.steps)).toBe('prompt policy prompt policy');
    expect(second.steps.slice(0, 2)).toEqual(first.steps);
    expect(text.tokenizer.decode(second.promptTokens)).toMatch(
      /<think>I know<\/think>[^]*<\|im_end\|>\n<\|im_start\|>user\nWhy\?<\|im_end\|>\n<\|im_start\|>assistant\n$/,
    );
    expect(second.trajectory).toMatchObject({ endReason: 'answer', formatOk: true });
    // And a third one behind that.
    const history = [QUESTION, plain(first), { role: 'user', content: 'Why?' } as Message];
    const third = await ask([...history, plain(second), QUESTION]);
    const asked = third.steps[4]?.tokens ?? [];
    expect(third.promptTokens).toEqual([...tokensOf(second.steps), ...asked]);
    expect(kinds(third.steps)).toBe('prompt policy prompt policy prompt policy');
  },
);

test('a question behind a tool result closes the turn first', async () => {
  const first = await ask([QUESTION]);
  const why: Message = { role: 'user', content: 'Why?' };
  const second = await ask([QUESTION, plain(first), result(first.calls[0], 'none'), why]);
  expect(kinds(second.steps)).toBe('prompt policy tool prompt policy');
  expect(text.tokenizer.decode(second.promptTokens)).toMatch(
    /<result>none<\/result><\|im_end\|>\n<\|im_start\|>user\nWhy\?<\|im_end\|>\n<\|im_start\|>assi/,
  );
});

describe('a new segment, without an error', () => {
  const rendered = (messages: Parameters<TextLayer['protocol']['renderPrompt']>[0]): number[] =>
    text.protocol.renderPrompt(messages, []);

  test('a history that was edited or compacted', async () => {
    const first = await ask([QUESTION]);
    const [call] = first.calls as [OpenAI.ChatCompletionMessageFunctionToolCall];
    const answer = result(call, 'It is Paris.');
    const edited: Message = { role: 'user', content: 'The capital of France?' };
    const otherCall = { ...call, function: { ...call.function, arguments: '{"query":"Paris"}' } };
    for (const history of [
      [edited, plain(first), answer],
      [plain(first), answer],
      [QUESTION, { ...plain(first), tool_calls: [otherCall] } as Message, answer],
      // An assistant message behind the logged answer that no policy wrote.
      [QUESTION, plain(first), answer, { role: 'assistant', content: 'Lyon' } as Message, QUESTION],
    ]) {
      const reply = await ask(history);
      expect(isSpliced(first, reply)).toBe(false);
      expect(kinds(reply.steps)).toBe('prompt policy');
      expect(text.tokenizer.decode(reply.promptTokens)).not.toContain('<think>');
    }
    // The history as it was still goes on.
    expect(isSpliced(first, await ask([QUESTION, plain(first), answer]))).toBe(true);
  });

  test('an answer that a limit cut', async () => {
    const first = await ask([QUESTION], { max_completion_tokens: 4 });
    const reply = await ask([QUESTION, { role: 'assistant', content: 'cut' }, QUESTION]);
    expect(first.trajectory.endReason).toBe('max_tokens');
    expect(isSpliced(first, reply)).toBe(false);
    const same = await ask([QUESTION, plain(first), QUESTION]);
    expect(isSpliced(first, same)).toBe(false);
  });

  test('a path that no longer fits, where the history without thoughts does', async () => {
    await relisten({ protocol: 'tags', contextTokens: 160 });
    h.engine.script = (prompt) =>
      prompt.includes('<result>')
        ? SCRIPT('<result><result>')
        : `<think>${'the capital of France '.repeat(12)}</think><search>France</search>`;
    const first = await ask([QUESTION]);
    const history = [QUESTION, plain(first), result(first.calls[0], 'Paris')];
    const fits = await ask(history);
    expect(isSpliced(first, fits)).toBe(true);
    const tight = await ask(history, { max_completion_tokens: 161 - fits.promptTokens.length });
    expect(isSpliced(first, tight)).toBe(false);
    expect(tight.message.content).toBe('Paris');
  });

  test('other tools, where the prompt shows them; where it does not, the path goes on', async () => {
    const noted: Body = {
      tools: [...tools, { type: 'function', function: { name: 'note', parameters: {} } }],
    };
    const first = await ask([QUESTION]);
    const history = [QUESTION, plain(first), result(first.calls[0], 'Paris')];
    expect(isSpliced(first, await ask(history, { tool_choice: 'none' }))).toBe(true);
    await expect(ask(history, noted)).rejects.toMatchObject({ code: 'unknown_tool' });

    await relisten({ protocol: 'hermes', contextTokens: 2_048 });
    h.engine.script = HERMES_SCRIPT;
    const shown = await ask([QUESTION]);
    const next = [
      ...[QUESTION, plain(shown), result(shown.calls[0], 'x'), result(shown.calls[1], 'y')],
    ];
    expect(isSpliced(shown, await ask(next, noted))).toBe(false);
    expect(isSpliced(shown, await ask(next, { tool_choice: 'none' }))).toBe(false);
    expect(isSpliced(shown, await ask(next))).toBe(true);
    // A conversation that began without tools and goes on with some.
    h.engine.script = () => 'Paris<|im_end|>';
    const bare = await ask([QUESTION], { tools: [] });
    const more: Message[] = [QUESTION, plain(bare), { role: 'user', content: 'Why?' }];
    expect(isSpliced(bare, await ask(more))).toBe(false);
    expect(isSpliced(bare, await ask(more, { tools: [] }))).toBe(true);
    expect(h.engine.stats().openSequences).toBe(0);
  });

  test('the same history in another session', async () => {
    const first = await ask([QUESTION], {}, { session: 'one' });
    const history = [QUESTION, plain(first), result(first.calls[0], 'Paris')];
    expect(isSpliced(first, await ask(history, {}, { session: 'two' }))).toBe(false);
    expect(isSpliced(first, await ask(history))).toBe(false);
    const next = await ask(history, {}, { session: 'one' });
    expect(isSpliced(first, next)).toBe(true);
    expect(next.trajectory.conversationId).toBe(first.trajectory.conversationId);
  });

  test('a history that nobody logged', async () => {
    const call = {
      id: 'c',
      type: 'function' as const,
      function: { name: 'search', arguments: '{}' },
    };
    const reply = await ask([
      QUESTION,
      { role: 'assistant', content: null, tool_calls: [call] },
      result(call, 'Paris'),
    ]);
    expect(reply.promptTokens).toEqual(
      rendered([
        { role: 'user', content: QUESTION.content as string },
        { role: 'assistant', content: '', toolCalls: [{ name: 'search', arguments: '{}' }] },
        { role: 'tool', content: 'Paris' },
      ]),
    );
  });
});

test('two clients with the same question and the same calls keep their results apart', async () => {
  const [one, two] = await Promise.all([
    ask([QUESTION], { seed: 1 }),
    ask([QUESTION], { seed: 1 }),
  ]);
  expect(tokensOf(one.steps)).toEqual(tokensOf(two.steps));
  expect(one.calls[0]?.id).not.toBe(two.calls[0]?.id);
  const next = await Promise.all([
    ask([QUESTION, plain(one), result(one.calls[0], 'of one')]),
    ask([QUESTION, plain(two), result(two.calls[0], 'of two')]),
  ]);
  [one, two].forEach((before, i) => {
    const after = next[i] as Reply;
    expect(after.steps.slice(0, 2)).toEqual(before.steps);
    expect(after.steps[2]?.text).toBe(`<result>of ${['one', 'two'][i]}</result>`);
    expect(after.steps).toHaveLength(4);
  });
});

test('of two answers that no client can tell apart, the newest goes on', async () => {
  h.engine.script = () => '<think>first</think><answer>\\boxed{Paris}</answer><|im_end|>';
  const old = await ask([QUESTION]);
  h.engine.script = () => '<think>second</think><answer>\\boxed{Paris}</answer><|im_end|>';
  const newest = await ask([QUESTION]);
  const next = await ask([QUESTION, plain(old), { role: 'user', content: 'Why?' }]);
  expect(isSpliced(newest, next)).toBe(true);
});

test('one answer may be continued twice: two branches below it', async () => {
  const first = await ask([QUESTION]);
  const history = (said: string): Message[] => [
    ...[QUESTION, plain(first), result(first.calls[0], said)],
  ];
  const left = await ask(history('left'));
  const right = await ask(history('right'));
  expect(left.steps[2]?.parentId).toBe(right.steps[2]?.parentId);
  expect(left.steps[2]?.id).not.toBe(right.steps[2]?.id);
  expect(h.deps.stores.trajectories.tree(first.trajectory.id).steps).toHaveLength(6);
});

describe('after a swap', () => {
  /** A second version beside the first, live. */
  async function swap(): Promise<void> {
    const path = join(h.policiesFolder, 'second');
    cpSync(h.deps.stores.policies.get(1).path, path, { recursive: true });
    const { version } = h.deps.stores.policies.register({
      ...{ parentVersion: 1, kind: 'full', path, sha256: 'x'.repeat(64), sourceRunId: null },
      ...{ status: 'candidate', evaluation: null, createdAt: 1 },
    });
    await h.deps.policies.activate(version);
    expect(h.deps.policies.liveVersion).toBe(2);
  }

  test('a running conversation keeps its version; a new one has the new', async () => {
    const first = await ask([QUESTION]);
    await swap();
    const history = [QUESTION, plain(first), result(first.calls[0], 'Paris')];
    const second = await ask(history);
    expect([first.version, second.version]).toEqual([1, 1]);
    expect(isSpliced(first, second)).toBe(true);
    expect(new Set(second.steps.map(({ policyVersion }) => policyVersion))).toEqual(new Set([1]));
    expect((await ask([QUESTION])).version).toBe(2);
    // Another version by name is another policy: it gets the history as text.
    const named = await ask(history, { model: 'ramify@2' });
    expect(named.version).toBe(2);
    expect(isSpliced(first, named)).toBe(false);
    expect(isSpliced(first, await ask(history, { model: 'ramify@1' }))).toBe(true);
  });

  test('a version that was rolled back is left, unless the client names it', async () => {
    await swap();
    const first = await ask([QUESTION]);
    await h.deps.policies.rollback();
    const history = [QUESTION, plain(first), result(first.calls[0], 'Paris')];
    const second = await ask(history);
    expect([first.version, second.version]).toEqual([2, 1]);
    expect(isSpliced(first, second)).toBe(false);
    expect(isSpliced(first, await ask(history, { model: 'ramify@2' }))).toBe(true);
  });

  test('keeps its version also where the path no longer fits', async () => {
    const first = await ask([QUESTION]);
    await swap();
    const history = [QUESTION, plain(first), result(first.calls[0], 'Paris')];
    const { promptTokens } = await ask(history);
    const tight = await ask(history, { max_completion_tokens: 513 - promptTokens.length });
    expect(isSpliced(first, tight)).toBe(false);
    expect(tight.version).toBe(1);
  });

  test('a version that is gone: the live one gets the history as a new segment', async () => {
    const first = await ask([QUESTION]);
    await swap();
    rmSync(h.deps.stores.policies.get(1).path, { recursive: true });
    await h.engine.unload(1);
    const reply = await ask([QUESTION, plain(first), result(first.calls[0], 'Paris')]);
    expect(reply.version).toBe(2);
    expect(isSpliced(first, reply)).toBe(false);
    expect(h.engine.stats().openSequences).toBe(0);
  });
});

test('several choices go on from one stored answer: branches below its steps', async () => {
  const first = await ask([QUESTION]);
  const second = await ask([QUESTION, plain(first), result(first.calls[0], 'x')], { n: 2 });
  expect(isSpliced(first, second)).toBe(true);
  const branches = h.deps.stores.trajectories
    .list()
    .items.map(({ id }) => h.deps.stores.trajectories.get(id))
    .filter(({ steps }) => steps.length > 2);
  expect(branches).toHaveLength(2);
  for (const { steps, trajectory } of branches) {
    expect(kinds(steps)).toBe('prompt policy tool policy');
    expect(steps.slice(0, 2)).toEqual(first.steps);
    expect(trajectory.toolCalls).toBe(1);
  }
  expect(branches[0]?.steps[2]?.id).toBe(branches[1]?.steps[2]?.id);
  expect(branches[0]?.steps[3]?.id).not.toBe(branches[1]?.steps[3]?.id);
  const sampled = branches.reduce((sum, { steps }) => sum + (steps[3]?.tokens.length ?? 0), 0);
  expect(second.usage?.completion_tokens).toBe(sampled);
});
