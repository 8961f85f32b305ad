/**
 * What code may try in the JavaScript sandbox: each stays inside and ends, the next call works, and
 * nothing of the server is changed or left behind.
 */
import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '../clock.ts';
import { LIMITS } from '../limits.ts';
import { javascriptTool } from './javascript-tool.ts';
import type { JavaScriptTool } from './javascript-tool.ts';
import { createToolRegistry } from './registry.ts';
import { until } from './testing/processes.ts';
import { ENDING_PROBES, PROBES, STOPPED_PROBES } from './testing/javascript-probes.ts';

/** Of this process; null where the system does not tell. */
function threads(): number | null {
  return process.platform === 'linux' ? readdirSync('/proc/self/task').length : null;
}

const before = {
  threads: threads(),
  globals: Reflect.ownKeys(globalThis).length,
  prototype: Reflect.ownKeys(Object.prototype).length,
};

let tool: JavaScriptTool;
let hasty: JavaScriptTool;

beforeAll(() => {
  tool = javascriptTool({ timeoutMs: 10_000 });
  hasty = javascriptTool({ timeoutMs: 700 });
});

afterAll(async () => {
  await Promise.all([tool.stop(), hasty.stop()]);
  expect(Reflect.ownKeys(globalThis).length).toBe(before.globals);
  expect(Reflect.ownKeys(Object.prototype).length).toBe(before.prototype);
  await until(() => (threads() ?? 0) <= (before.threads ?? 0));
});

async function outcomeOf(which: JavaScriptTool, code: string): Promise<string> {
  try {
    return `ok: ${await which.run({ code }, new AbortController().signal)}`;
  } catch (thrown) {
    const { code: error, message } = thrown as { code: string; message: string };
    return `${error}: ${message}`;
  }
}

/** In a realm of its own: nothing of the call before is there. */
const clean = async (which: JavaScriptTool): Promise<void> =>
  expect(await outcomeOf(which, '[typeof console.log, Object.keys({}).length, 1 + 1]')).toBe(
    'ok: ["function",0,2]',
  );

describe('what code tries stays inside', () => {
  test.each(PROBES)('%s', async (_, code, expected) => {
    expect(await outcomeOf(tool, code)).toMatch(expected);
    await clean(tool);
  });

  test.each(STOPPED_PROBES)('%s is stopped', async (_, code) => {
    const startedAt = performance.now();
    expect(await outcomeOf(hasty, code)).toMatch(/^tool_timeout: /);
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    await clean(hasty);
  });

  test.each(ENDING_PROBES)('%s ends', async (_, code) => {
    const { rss } = process.memoryUsage();
    expect(await outcomeOf(hasty, code)).toMatch(/^tool_(failed|timeout): /);
    expect(process.memoryUsage().rss - rss).toBeLessThan(8 * LIMITS.javascriptHeapBytes);
    await clean(hasty);
  });
});

test('200 calls at once are all answered, each with its own', async () => {
  const registry = createToolRegistry([tool], { clock: systemClock });
  const calls = Array.from({ length: 200 }, (_, i) =>
    registry.call(
      'javascript',
      JSON.stringify({ code: i % 20 === 0 ? 'throw new Error("no")' : `${i} * 2` }),
    ),
  );
  expect((await Promise.all(calls)).map(({ result }) => result)).toEqual(
    Array.from({ length: 200 }, (_, i) => (i % 20 === 0 ? 'error: Error: no' : `${i * 2}`)),
  );
});
