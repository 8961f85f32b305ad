/** Tests of the tool registry: every failure is an outcome, every bound holds. */
import { describe, expect, test } from 'vitest';
import { ManualClock } from '../clock.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { Tool } from '../ports.ts';
import { createToolRegistry } from './registry.ts';
import type { ToolRegistryOptions } from './registry.ts';

const clock = new ManualClock();

function tool(name: string, run: Tool['run'], timeoutMs = 1_000): Tool {
  const properties = { text: { type: 'string' } };
  return {
    name,
    description: `does ${name}`,
    parameters: { type: 'object', properties, required: ['text'], additionalProperties: false },
    primaryArgument: 'text',
    effects: 'none',
    timeoutMs,
    run,
  };
}

const registry = (tools: Tool[], options: Partial<ToolRegistryOptions> = {}) =>
  createToolRegistry(tools, { clock, ...options });

const echo = tool('echo', async (args) => `echo ${String(args.text)}`);
const ARGS = '{"text":"hi"}';

test('a result, its time by the clock, and the specs', async () => {
  const slow = {
    ...tool('slow', async () => (clock.advance(30), 'done')),
    effects: 'writes' as const,
  };
  const tools = registry([echo, slow]);
  expect(await tools.call('echo', ARGS)).toEqual({
    result: 'echo hi',
    error: null,
    durationMs: 0,
    effects: 'none',
    served: 'live',
  });
  expect(await tools.call('slow', ARGS)).toMatchObject({ durationMs: 30, effects: 'writes' });
  expect(tools.has('echo')).toBe(true);
  expect(tools.has('toString')).toBe(false);
  expect(tools.specs(['slow'])).toEqual([
    {
      name: 'slow',
      description: 'does slow',
      parameters: slow.parameters,
      primaryArgument: 'text',
      effects: 'writes',
    },
  ]);
  expect(() => tools.specs(['echo', 'nope'])).toThrow(
    expect.objectContaining({ code: 'unknown_tool' }),
  );
});

describe('failures are outcomes that the policy can read', () => {
  const failing = tool('failing', async () => {
    throw new AppError('tool_failed', 'no luck');
  });
  const buggy = tool('buggy', () => {
    throw new TypeError('x is undefined');
  });
  const wordy = tool('wordy', async () => {
    throw new AppError('tool_failed', 'x'.repeat(5_000));
  });
  const tools = registry([echo, failing, buggy, wordy]);

  test.each([
    [
      'nope',
      ARGS,
      'unknown_tool',
      'error: there is no tool nope; there are: echo, failing, buggy, wordy',
    ],
    [
      'echo',
      '{"text":',
      'tool_arguments_invalid',
      'error: the arguments of echo are not valid JSON',
    ],
    [
      'echo',
      '["hi"]',
      'tool_arguments_invalid',
      'error: the arguments of echo are not a JSON object',
    ],
    ['echo', '{}', 'tool_arguments_invalid', "do not fit: must have required property 'text'"],
    ['echo', '{"text":1}', 'tool_arguments_invalid', 'do not fit: at /text must be string'],
    ['echo', '{"text":"a","b":1}', 'tool_arguments_invalid', 'must NOT have additional properties'],
    [
      'echo',
      `"${'x'.repeat(LIMITS.toolArgumentsCharsMax)}"`,
      'tool_arguments_invalid',
      'longer than',
    ],
    ['failing', ARGS, 'tool_failed', 'error: no luck'],
    ['buggy', ARGS, 'tool_failed', 'error: x is undefined'],
  ])('%s %.30s', async (name, args, error, text) => {
    const outcome = await tools.call(name, args);
    expect(outcome).toMatchObject({ error, served: 'live' });
    expect(outcome.result).toContain(text);
  });

  test('error texts are short', async () => {
    expect((await tools.call('wordy', ARGS)).result.length).toBeLessThan(500);
  });
});

describe('time', () => {
  test('a tool that takes too long is a time-out, and hears of it', async () => {
    let reason: unknown = null;
    const stuck = tool(
      'stuck',
      (_args, signal) =>
        new Promise(() => signal.addEventListener('abort', () => (reason = signal.reason))),
      20,
    );
    // With one slot, the second call shows that the first gave its slot back.
    const tools = registry([stuck, echo], { concurrencyMax: 1 });
    const outcome = await tools.call('stuck', ARGS);
    expect(outcome).toMatchObject({
      error: 'tool_timeout',
      result: 'error: stuck took longer than 20 ms',
    });
    expect(reason).toMatchObject({ code: 'tool_timeout' });
    expect(await tools.call('echo', ARGS)).toMatchObject({ error: null });
  });

  test('waiting for a slot counts', async () => {
    const blocker = tool('blocker', () => new Promise((resolve) => setTimeout(resolve, 200, 'ok')));
    const hasty = { ...echo, name: 'hasty', timeoutMs: 20 };
    const tools = registry([blocker, hasty], { concurrencyMax: 1 });
    const first = tools.call('blocker', ARGS);
    expect(await tools.call('hasty', ARGS)).toMatchObject({ error: 'tool_timeout' });
    expect(await first).toMatchObject({ error: null });
    expect(await tools.call('hasty', ARGS)).toMatchObject({ error: null });
  });

  test('an aborted call ends at once, also before it began', async () => {
    const stuck = tool('stuck', () => new Promise(() => undefined), 10_000);
    const tools = registry([stuck, echo]);
    const controller = new AbortController();
    const call = tools.call('stuck', ARGS, controller.signal);
    controller.abort();
    expect(await call).toMatchObject({ error: 'request_cancelled' });
    expect(await tools.call('echo', ARGS, controller.signal)).toMatchObject({
      error: 'request_cancelled',
    });
  });
});

test('no more calls at once than allowed, and a bounded queue, in order', async () => {
  let active = 0;
  let peak = 0;
  const order: string[] = [];
  const counting = tool('counting', async (args) => {
    peak = Math.max(peak, ++active);
    order.push(String(args.text));
    await new Promise((resolve) => setTimeout(resolve, 5));
    active--;
    return 'ok';
  });
  const tools = registry([counting], { concurrencyMax: 3, queueMax: 5 });
  const outcomes = await Promise.all(
    Array.from({ length: 10 }, (_, i) => tools.call('counting', `{"text":"${i}"}`)),
  );
  expect(peak).toBe(3);
  expect(outcomes.map((outcome) => outcome.error)).toEqual([
    ...Array.from({ length: 8 }, () => null),
    'tool_failed',
    'tool_failed',
  ]);
  expect(outcomes[9]?.result).toContain('5 calls wait already');
  expect(order).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
  expect(await tools.call('counting', ARGS)).toMatchObject({ error: null });
});

test('a long result is cut, said to be cut, and stays valid text', async () => {
  const max = LIMITS.toolResultCharsMax;
  const long = tool('long', async (args) => '😀'.repeat(max) + String(args.text));
  const exact = tool('exact', async () => 'x'.repeat(max));
  const tools = registry([long, exact]);
  const { result, error } = await tools.call('long', ARGS);
  expect(error).toBeNull();
  expect(result.length).toBeLessThanOrEqual(max);
  expect(result).toMatch(/^(😀)+\n\[the rest of the result was cut\]$/u);
  expect((await tools.call('exact', ARGS)).result).toBe('x'.repeat(max));
});

test('two tools of one name and a broken schema are refused', () => {
  expect(() => registry([echo, echo])).toThrow('two tools are called echo');
  const broken = { ...echo, parameters: { type: 'nothing' } };
  expect(() => registry([broken])).toThrow(
    expect.objectContaining({ code: 'config_invalid', message: expect.stringContaining('echo') }),
  );
});

test('a group of tools is replaced as a whole, while calls of the old ones run on', async () => {
  let finish = (_: string): void => undefined;
  const result = new Promise<string>((resolve) => (finish = resolve));
  const slow = tool('slow', () => result);
  const tools = registry([echo]);
  tools.replaceGroup('a', [slow, { ...echo, name: 'own' }]);
  tools.replaceGroup('b', [{ ...echo, name: 'other' }]);
  const running = tools.call('slow', ARGS);
  const broken = { ...echo, name: 'broken', parameters: { type: 'nothing' } };
  const id = 'https://schema.example/one';
  const sharing = ['one', 'two'].map((name) => ({
    ...echo,
    name,
    parameters: { ...echo.parameters, $id: id },
  }));
  tools.replaceGroup('a', [echo, { ...echo, name: 'other' }, broken, ...sharing]);
  const known = ['echo', 'slow', 'own', 'other', 'broken', 'one', 'two'];
  expect(known.filter((name) => tools.has(name))).toEqual(['echo', 'other', 'one', 'two']);
  finish('done');
  expect(await running).toMatchObject({ result: 'done', error: null });
  tools.replaceGroup('a', []);
  expect(known.filter((name) => tools.has(name))).toEqual(['echo', 'other']);
});

test('tools of a stranger come in turns, the old ones stay until then, and a later list wins', async () => {
  const { signal } = new AbortController();
  const many = Array.from({ length: 512 }, (_, i) => ({
    ...echo,
    name: `many${i}`,
    parameters: { ...echo.parameters, title: `${i}` },
  }));
  const broken = { ...echo, name: 'broken', parameters: { type: 'object', $ref: '#/$defs/none' } };
  const tools = registry([]);
  await tools.replaceGroupInTurns('a', [echo, broken], signal);
  expect(tools.list().map(({ name }) => name)).toEqual(['echo']);
  const replaced = tools.replaceGroupInTurns('a', [broken, ...many], signal);
  await new Promise(setImmediate);
  expect(await tools.call('echo', ARGS)).toMatchObject({ result: 'echo hi' });
  await replaced;
  expect(tools.list().map(({ name }) => name)).toEqual(many.map(({ name }) => name));
  expect(await tools.call('many511', '{}')).toMatchObject({ error: 'tool_arguments_invalid' });
  const older = tools.replaceGroupInTurns(
    'a',
    many.map((one) => ({ ...one, parameters: { ...one.parameters, title: `new ${one.name}` } })),
    signal,
  );
  await tools.replaceGroupInTurns('a', [{ ...echo, name: 'last' }], signal);
  await older;
  expect(tools.list().map(({ name }) => name)).toEqual(['last']);
});

test('a schema is read in the dialect that it names', async () => {
  const of = (name: string, schema: object): Tool => ({
    ...echo,
    name,
    parameters: { type: 'object', ...schema },
  });
  const pair = [{ const: 'a' }, { const: 'b' }];
  const tools = registry([
    of('seven', {
      $schema: 'http://json-schema.org/draft-07/schema#',
      properties: { text: { items: pair } },
    }),
    of('twenty', { properties: { text: { prefixItems: pair } } }),
    of('unheard', {
      $schema: 'https://schema.example/own',
      properties: { text: { prefixItems: pair } },
    }),
  ]);
  for (const name of ['seven', 'twenty', 'unheard']) {
    expect((await tools.call(name, '{"text":["a","b"]}')).error, name).toBeNull();
    expect((await tools.call(name, '{"text":["a","a"]}')).error, name).not.toBeNull();
  }
});

describe('a schema that takes exponential time', () => {
  const nested = (depth: number): string => '{"in":'.repeat(depth) + '{}' + '}'.repeat(depth);
  const inner = { allOf: [{ properties: { in: { $ref: '#/$defs/one' } } }, { required: ['out'] }] };
  test.each([
    [
      'a pattern',
      { properties: { text: { pattern: '^(a+)+$' } } },
      `{"text":"${'a'.repeat(60)}!"}`,
    ],
    ['names', { propertyNames: { pattern: '^(a+)+$' } }, `{"${'a'.repeat(60)}!":1}`],
    [
      'alternatives',
      { $defs: { one: { anyOf: [inner, inner] } }, $ref: '#/$defs/one' },
      nested(60),
    ],
  ])('does not hold the server: %s', async (_, schema, args) => {
    const parameters = { type: 'object', ...schema };
    const tools = registry([{ ...echo, name: 'odd', parameters }, echo]);
    const startedAt = performance.now();
    const outcome = await tools.call('odd', args);
    // Without an end each of them takes years.
    expect(performance.now() - startedAt).toBeLessThan(20 * LIMITS.toolArgumentsCheckMs);
    expect(outcome.error).toBe('tool_arguments_invalid');
    expect(outcome.result).toContain(`took longer than ${LIMITS.toolArgumentsCheckMs} ms`);
    expect(await tools.call('odd', '[]')).toMatchObject({ error: 'tool_arguments_invalid' });
    expect(await tools.call('echo', ARGS)).toMatchObject({ result: 'echo hi' });
  });
});

test('a tool has its own bound of calls at once, and one that is full keeps no other from running', async () => {
  let [running, most] = [0, 0];
  const release: (() => void)[] = [];
  const few: Tool = {
    ...tool('few', async () => {
      most = Math.max(most, ++running);
      await new Promise<void>((resolve) => release.push(resolve));
      running--;
      return 'done';
    }),
    concurrencyMax: 2,
  };
  const tools = registry([few, echo], { concurrencyMax: 3 });
  const calls = Array.from({ length: 6 }, () => tools.call('few', ARGS));
  expect((await tools.call('echo', ARGS)).result).toBe('echo hi');
  for (let i = 0; i < 6; i++) {
    while (release.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    release.shift()!();
  }
  expect((await Promise.all(calls)).map(({ result }) => result)).toEqual(Array(6).fill('done'));
  expect(most).toBe(2);
});

describe('callers that wait', () => {
  /** A tool that runs one call at a time, each when it is let go on; `order` is what ran. */
  function serial() {
    const order: string[] = [];
    const released: (() => void)[] = [];
    const one: Tool = {
      ...tool('one', async (args) => {
        order.push(String(args.text));
        await new Promise<void>((resolve) => released.push(resolve));
        return 'done';
      }),
      concurrencyMax: 1,
    };
    const goOn = async (): Promise<void> => {
      while (released.length === 0) await new Promise(setImmediate);
      released.shift()!();
    };
    return { tools: registry([one]), order, goOn };
  }

  const text = (value: string): string => JSON.stringify({ text: value });

  test('take turns, each with its own calls in order', async () => {
    const { tools, order, goOn } = serial();
    const calls = ['a0', 'a1', 'a2', 'a3', 'b0', 'c0', 'b1'].map((value) =>
      tools.callsOf(value[0]!).call('one', text(value)),
    );
    for (let i = 0; i < calls.length; i++) await goOn();
    await Promise.all(calls);
    expect(order).toEqual(['a0', 'a1', 'b0', 'c0', 'a2', 'b1', 'a3']);
  });

  test('have half of the places; one that leaves makes room', async () => {
    const { tools, goOn } = serial();
    const [a, b] = [tools.callsOf('a'), tools.callsOf('b')];
    const leaving = new AbortController();
    const running = a.call('one', ARGS);
    const left = a.call('one', ARGS, leaving.signal);
    const calls = Array.from({ length: LIMITS.keyToolQueueMax - 1 }, () => a.call('one', ARGS));
    expect(await a.call('one', ARGS)).toMatchObject({
      error: 'tool_failed',
      result: 'error: 128 calls of this key wait already, of 256 that may',
    });
    leaving.abort();
    expect(await left).toMatchObject({ error: 'request_cancelled' });
    calls.push(a.call('one', ARGS), b.call('one', ARGS));
    // Who has no key has all that is left.
    const places = LIMITS.toolQueueMax - calls.length;
    calls.push(...Array.from({ length: places }, () => tools.call('one', ARGS)));
    expect((await tools.call('one', ARGS)).result).toBe('error: 256 calls wait already');
    for (let i = 0; i <= calls.length; i++) await goOn();
    for (const { error } of await Promise.all([running, ...calls])) expect(error).toBeNull();
  });
});

test('a group that hangs keeps no other tool from running, also after its tools changed', async () => {
  let begun = 0;
  const hung = (name: string): Tool =>
    tool(name, (_, signal) => {
      begun++;
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve('late')));
    });
  const tools = registry([echo]);
  const controller = new AbortController();
  const call = (name: string): Promise<unknown> => tools.call(name, ARGS, controller.signal);
  tools.replaceGroup('down', [hung('one'), hung('two')]);
  tools.replaceGroup('up', [{ ...echo, name: 'other' }]);
  const many = LIMITS.toolConcurrencyMax;
  const calls = Array.from({ length: 2 * many }, (_, i) => call(i % 2 === 0 ? 'one' : 'two'));
  tools.replaceGroup('down', [hung('one'), hung('three')]);
  calls.push(...Array.from({ length: many }, () => call('three')));
  expect(await tools.call('echo', ARGS)).toMatchObject({ result: 'echo hi' });
  expect(await tools.call('other', ARGS)).toMatchObject({ result: 'echo hi' });
  expect(begun).toBe(LIMITS.toolGroupConcurrencyMax);
  controller.abort();
  await Promise.all(calls);
});

describe('calls that are made again', () => {
  /** Fails so often, then answers with the number of its call. */
  function failing(times: number, error: AppError, changes: Partial<Tool> = {}) {
    let calls = 0;
    const run = async (): Promise<string> => {
      if (++calls <= times) throw error;
      return `call ${calls}`;
    };
    const tools = registry([{ ...tool('flaky', run), retriesMax: 2, ...changes }]);
    return { call: () => tools.call('flaky', ARGS), calls: () => calls };
  }
  const passing = new AppError('tool_failed', 'busy', { retryAfterS: 0 });

  test('a failure that may pass, after growing pauses', async () => {
    const { call } = failing(2, passing);
    const startedAt = performance.now();
    expect(await call()).toMatchObject({ result: 'call 3', error: null });
    expect(performance.now() - startedAt).toBeGreaterThan(3 * LIMITS.toolRetryMs - 20);
  });

  test.each([
    ['more often than it wants', 9, passing, {}, 3],
    ['one that will not pass', 9, new AppError('tool_failed', 'no'), {}, 1],
    ['one with effects', 9, passing, { effects: 'writes' }, 1],
    ['one that did not ask for it', 9, passing, { retriesMax: 0 }, 1],
    ['after its time', 9, new AppError('tool_failed', 'busy', { retryAfterS: 60 }), {}, 1],
  ] as const)('never %s', async (_, times, error, changes, calls) => {
    const flaky = failing(times, error, changes);
    expect(await flaky.call()).toMatchObject({
      error: 'tool_failed',
      result: `error: ${error.message}`,
    });
    expect(flaky.calls()).toBe(calls);
  });

  test('a call that is given up in a pause ends there', async () => {
    const controller = new AbortController();
    let calls = 0;
    const run = async (): Promise<string> => {
      calls++;
      setTimeout(() => controller.abort(), 20);
      throw new AppError('tool_failed', 'busy', { retryAfterS: 30 });
    };
    const tools = registry([{ ...tool('flaky', run, 60_000), retriesMax: 5 }]);
    expect(await tools.call('flaky', ARGS, controller.signal)).toMatchObject({
      error: 'request_cancelled',
    });
    expect(calls).toBe(1);
  });
});

test('all tools are listed in the order in which they came', () => {
  const tools = registry([echo]);
  tools.replaceGroup('more', [tool('b', async () => ''), tool('a', async () => '')]);
  expect(tools.list().map(({ name }) => name)).toEqual(['echo', 'b', 'a']);
});
