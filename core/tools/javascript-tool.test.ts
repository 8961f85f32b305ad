/**
 * Tests of the JavaScript tool with its real thread: results, and everything that must not work.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { systemClock } from '../clock.ts';
import { LIMITS } from '../limits.ts';
import type { ToolOutcome } from '../ports.ts';
import { javascriptTool } from './javascript-tool.ts';
import { createToolRegistry } from './registry.ts';

const tool = javascriptTool({ timeoutMs: 800, graceMs: 1_000 });
const never = (): AbortSignal => new AbortController().signal;
const run = (code: string): Promise<string> => tool.run({ code }, never());

afterAll(() => tool.stop());

describe('results', () => {
  test.each([
    ['12+5*3', '27'],
    ['0.1+0.2', '0.30000000000000004'],
    ['1e21', '1e+21'],
    ['-7/2', '-3.5'],
    ['1/0', 'Infinity'],
    ['2n**64n', '18446744073709551616'],
    ['const x = 6;\nconst y = 7;\nx * y', '42'],
    ['"text"', 'text'],
    ['""', ''],
    ['[1, "a", {b: null}]', '[1,"a",{"b":null}]'],
    ['console.log("a", 1, [2]); console.log("b")', 'a 1 [2]\nb'],
    ['console.log("sum"); 1 + 1', 'sum\n2'],
    ['let x = 1;', 'undefined'],
    ['Promise.resolve(3).then((x) => x + 1)', '4'],
    ['(async () => { await null; return "done"; })()', 'done'],
    ['new Error("a value")', 'Error: a value'],
    ['"東京 😀"', '東京 😀'],
  ])('%s', async (code, result) => {
    expect(await run(code)).toBe(result);
  });

  test('every call has a fresh context and the same random numbers', async () => {
    const first = await run('globalThis.left = 1; Math.random()');
    expect(await run('Math.random()')).toBe(first);
    expect(await run('typeof left')).toBe('undefined');
    expect(Number(first)).toBeGreaterThan(0);
  });
});

describe('errors of the code are tool_failed with their message', () => {
  test.each([
    ['throw new Error("no luck")', 'Error: no luck'],
    ['throw 5', 'thrown: 5'],
    ['throw { odd: true }', 'an object was thrown'],
    ['nope', "ReferenceError: 'nope' is not defined"],
    ['1 +', 'SyntaxError: '],
    ['Promise.reject(new TypeError("late"))', 'TypeError: late'],
    ['new Promise(() => {})', 'never settled'],
    ['const a = []; a.push(a); a', 'circular'],
    ['function f() { return 1 + f(); } f()', 'stack overflow'],
  ])('%s', async (code, message) => {
    await expect(run(code)).rejects.toMatchObject({
      code: 'tool_failed',
      message: expect.stringContaining(message),
    });
  });
});

describe('nothing of the outside is there', () => {
  test.each([
    ...['require', 'process', 'fetch', 'Buffer', 'setTimeout', 'WebSocket', 'Worker', 'std', 'os'],
    ...['WebAssembly', 'XMLHttpRequest', 'Deno', 'module'],
  ])('no %s', async (name) => {
    expect(await run(`typeof ${name}`)).toBe('undefined');
  });

  test.each([
    ['import("fs")', 'could not load module'],
    ['console.log.constructor("return process")()', 'process'],
    ['import fs from "fs"', 'SyntaxError'],
  ])('%s', async (code, message) => {
    await expect(run(code)).rejects.toMatchObject({
      code: 'tool_failed',
      message: expect.stringContaining(message),
    });
  });
});

describe('code without measure is stopped, and the next call works', () => {
  test.each([
    ['while (true) {}', 'tool_timeout'],
    ['try { while (true) {} } catch {} finally { while (true) {} }', 'tool_timeout'],
    ['(async () => { while (true) await null; })()', 'tool_timeout'],
    ['({ toJSON() { while (true) {} } })', 'tool_timeout'],
    ['while (true) console.log("flood")', 'tool_timeout'],
    ['/(a+)+$/.test("a".repeat(40) + "b")', 'tool_timeout'],
    ['"x".repeat(2 ** 29)', 'tool_failed'],
    ['JSON.parse("[".repeat(1e6))', 'tool_failed'],
    ['eval("(".repeat(1e5) + "1" + ")".repeat(1e5))', 'tool_failed'],
  ])('%s', async (code, error) => {
    await expect(run(code)).rejects.toMatchObject({ code: error });
    expect(await run('1 + 1')).toBe('2');
  });

  test.each([
    'const a = []; while (true) a.push(new Uint8Array(1e6))',
    'const a = []; while (true) a.push("x".repeat(1e6) + a.length)',
    'const a = []; while (true) a.push(new Array(1000).fill(1))',
    'let a = {}; while (true) a = { a };',
  ])('a memory bomb: %s', async (code) => {
    const before = process.memoryUsage().rss;
    const patient = javascriptTool({ timeoutMs: 10_000 });
    await expect(patient.run({ code }, never())).rejects.toMatchObject({
      code: 'tool_failed',
      message: expect.stringMatching(/out of memory|memory is used up/),
    });
    expect(process.memoryUsage().rss - before).toBeLessThan(4 * LIMITS.javascriptHeapBytes);
    expect(await patient.run({ code: '1 + 1' }, never())).toBe('2');
    await patient.stop();
  });

  test('a flood that ends is cut', async () => {
    const lines = await run('for (let i = 0; i < 5000; i++) console.log("line " + i)');
    expect(lines.startsWith('line 0\nline 1\n')).toBe(true);
    expect(lines.length).toBeLessThanOrEqual(LIMITS.toolResultCharsMax + 1);
    expect((await run('"x".repeat(1e6)')).length).toBe(LIMITS.toolResultCharsMax + 1);
  });
});

test('a thread that does not answer is replaced', async () => {
  // Its time is over before the sandbox's own deadline, so the thread is terminated in the middle
  // of the loop.
  const hasty = javascriptTool({ timeoutMs: 2_000, graceMs: -1_500 });
  await expect(hasty.run({ code: 'while (true) {}' }, never())).rejects.toMatchObject({
    code: 'tool_timeout',
    message: expect.stringContaining('did not stop'),
  });
  await expect(hasty.run({ code: '2 + 2' }, never())).resolves.toBe('4');
  await hasty.stop();
});

test('fifty calls at once are all answered, in little time each', async () => {
  await run('0');
  const start = performance.now();
  const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => run(`${i} * 2`)));
  expect(answers).toEqual(Array.from({ length: 50 }, (_, i) => String(i * 2)));
  expect((performance.now() - start) / 50).toBeLessThan(40);
});

test('code that runs long keeps no other tool waiting', async () => {
  const other = { ...tool, name: 'other', run: async () => 'here', concurrencyMax: undefined };
  const tools = createToolRegistry([tool, other], { clock: systemClock, concurrencyMax: 1 });
  const call = (name: string): Promise<ToolOutcome> => tools.call(name, '{"code":"while (1) {}"}');
  const order: string[] = [];
  const long = [call('javascript'), call('javascript')];
  for (const one of long) void one.then(({ error }) => order.push(String(error)));
  expect((await call('other')).result).toBe('here');
  order.push('other');
  await Promise.all(long);
  expect(order).toEqual(['other', 'tool_timeout', 'tool_timeout']);
});

test('an aborted call leaves the queue; those behind it go on', async () => {
  const controller = new AbortController();
  const slow = run('while (true) {}').catch((error: unknown) => error);
  const waiting = tool.run({ code: '1' }, controller.signal).catch((error: unknown) => error);
  const behind = run('3');
  controller.abort();
  expect(await waiting).toMatchObject({ code: 'request_cancelled' });
  expect(await behind).toBe('3');
  expect(await slow).toMatchObject({ code: 'tool_timeout' });
  await expect(tool.run({ code: '1' }, controller.signal)).rejects.toMatchObject({
    code: 'request_cancelled',
  });
});

test('the queue is bounded, and stop fails what runs and waits', async () => {
  const small = javascriptTool({ queueMax: 2 });
  const calls = ['while (true) {}', '1', '2'].map((code) =>
    small.run({ code }, never()).catch((error: unknown) => error),
  );
  expect(await calls[2]).toMatchObject({
    code: 'tool_failed',
    message: '2 calls wait for the sandbox already',
  });
  await small.stop();
  for (const call of calls) expect(await call).toMatchObject({ code: 'tool_failed' });
  await expect(small.run({ code: '1' }, never())).rejects.toMatchObject({ code: 'tool_failed' });
  await small.stop();
});
