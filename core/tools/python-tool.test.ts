/**
 * The tool `python` in its real sandbox: what it answers, and that whatever a program tries stays
 * inside, ends, and leaves no process and no file. Where bubblewrap cannot run, only that it says
 * why; RAMIFY_TEST_REQUIRE, in which .ci/run names python, makes that a failure.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { systemClock } from '../clock.ts';
import { LIMITS } from '../limits.ts';
import { builtModule, packageRoot } from '../paths.ts';
import type { Tool } from '../ports.ts';
import { offerPython } from './python-tool.ts';
import { createToolRegistry } from './registry.ts';
import { alive, descendants, printedWithFewFiles, until } from './testing/processes.ts';
import { ENDING_PROBES, PROBES, STOPPED_PROBES } from './testing/python-probes.ts';

const offer = await offerPython();
const hasty = await offerPython(1_000);
const never = (): AbortSignal => new AbortController().signal;

/** `ok: ` and the result, or the code and the message. */
async function outcomeOf(tool: Tool, code: string, signal = never()): Promise<string> {
  try {
    return `ok: ${await tool.run({ code }, signal)}`;
  } catch (thrown) {
    const { code: error, message } = thrown as { code: string; message: string };
    return `${error}: ${message}`;
  }
}

/** Every process that ran for this one meanwhile must be gone soon after. */
async function leavingNothing<T>(work: () => Promise<T>): Promise<T> {
  const before = new Set(descendants(process.pid));
  const seen = new Set<number>();
  const timer = setInterval(() => {
    for (const pid of descendants(process.pid)) if (!before.has(pid)) seen.add(pid);
  }, 20);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await until(() => ![...seen].some(alive));
    const marked = (folder: string): string[] =>
      readdirSync(folder).filter((name) => name.startsWith('ramify-probe'));
    for (const folder of ['/', tmpdir(), '/tmp', '/dev/shm', packageRoot]) {
      expect(marked(folder)).toEqual([]);
    }
  }
}

test.each([offer, hasty])('it is offered, or says what is missing', (one) => {
  if ('tool' in one) {
    expect(one.version).toMatch(/^3\.\d+\.\d+$/);
    return;
  }
  expect(one.fault).toMatch(/needs .*install|namespaces/);
  expect(process.env['RAMIFY_TEST_REQUIRE'] ?? '', one.fault).not.toContain('python');
});

test('a server that can open no more files fails the call, and lives on', async () => {
  const module = builtModule(import.meta.url, './python-sandbox.ts').href;
  const printed = await printedWithFewFiles(`
    const { runPython } = await import(${JSON.stringify(module)});
    const { signal } = new AbortController();
    const run = (file) => runPython({ file, args: ['said'], identity: {} },
      { code: '', timeoutMs: 10_000, signal }).catch(({ code, message }) => code + ': ' + message);
    takeFiles();
    const failed = await run('/bin/echo');
    await new Promise((resolve) => setTimeout(resolve, 50));
    freeFiles();
    console.log(failed + '\\n' + await run('/bin/echo') + '\\n' + await run('/nowhere'));`);
  expect(printed.trim().split('\n')).toEqual([
    'tool_failed: the sandbox cannot be started: spawn /bin/echo EMFILE',
    'said',
    'tool_failed: the sandbox cannot be started: spawn /nowhere ENOENT',
  ]);
});

if ('tool' in offer && 'tool' in hasty) {
  const { tool } = offer;

  describe('answers', () => {
    test.each([
      ['12 + 5 * 3', 'ok: 27'],
      ['print("a")\nprint("b")\n"c"', 'ok: a\nb\nc'],
      ['x = 1', 'ok: None'],
      ['', 'ok: None'],
      ['None', 'ok: None'],
      ['[i * i for i in range(4)]', 'ok: [0, 1, 4, 9]'],
      ['from math import factorial\nfactorial(20)', 'ok: 2432902008176640000'],
      ['from dataclasses import dataclass\n@dataclass\nclass A:\n  x: int\nA(3)', 'ok: A(x=3)'],
      ['if __name__ == "__main__": print("main")', 'ok: main'],
      ['import sys\nprint("out")\nsys.exit()', 'ok: out'],
      ['import zoneinfo, datetime, decimal, fractions, json, re, statistics\n1', 'ok: 1'],
      ['"żółć 🙂 \u202E x\\0y"', 'ok: żółć 🙂 \u202E x\0y'],
      ['1/0', 'tool_failed: line 1: ZeroDivisionError: division by zero'],
      ['def f():\n  raise ValueError("a\\nb")\n\nf()', 'tool_failed: line 2: ValueError: a b'],
      ['x =\n', 'tool_failed: line 1: SyntaxError: invalid syntax'],
      ['import sys\nsys.exit("bad")', 'tool_failed: bad'],
      ['import sys\nsys.exit(3)', 'tool_failed: the code ended with status 3'],
      ['input()', 'tool_failed: line 1: EOFError: EOF when reading a line'],
    ])('%j', async (code, outcome) => {
      expect(await outcomeOf(tool, code)).toBe(outcome);
    });

    test('random numbers and the order of sets are the same in every call', async () => {
      const code = 'import random\nprint(random.random(), list({"a", "b", "c", "d"}), hash("x"))';
      expect(await outcomeOf(tool, code)).toBe(await outcomeOf(tool, code));
    });

    test('nothing of one call is there in the next', async () => {
      const code = 'import os\nprint(os.listdir("."))\nopen("left", "w").write("x")';
      for (let i = 0; i < 2; i++) expect(await outcomeOf(tool, code)).toBe('ok: []\n1');
    });
  });

  describe('what a program tries stays inside', () => {
    test.each(PROBES)('%s', async (_, code, expected) => {
      expect(await leavingNothing(() => outcomeOf(tool, code))).toMatch(expected);
    });

    test.each(STOPPED_PROBES)('%s is stopped', async (_, code) => {
      const startedAt = performance.now();
      const outcome = await leavingNothing(() => outcomeOf(hasty.tool, code));
      expect(outcome).toBe('tool_timeout: the code ran longer than 1000 ms');
      expect(performance.now() - startedAt).toBeLessThan(5_000);
    });

    test.each(ENDING_PROBES)('%s ends', async (_, code) => {
      const rss = process.memoryUsage().rss;
      const outcome = await leavingNothing(() => outcomeOf(hasty.tool, code));
      expect(outcome).toMatch(/^tool_(failed|timeout): /);
      expect(process.memoryUsage().rss - rss).toBeLessThan(256 * 1024 * 1024);
    });

    test('no server of this machine is reached', async () => {
      let connections = 0;
      const server = createServer(() => connections++).listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      const code = `import socket
for host in ['127.0.0.1', '::1', 'localhost']:
    try: socket.create_connection((host, ${port}), 1); print('connected')
    except OSError as error: print(type(error).__name__)`;
      expect(await outcomeOf(tool, code)).toMatch(/^ok: (\w+Error\n?|gaierror\n?){3}$/i);
      server.close();
      expect(connections).toBe(0);
    });

    test('no file of the server is there', async () => {
      const files = [import.meta.filename, process.execPath, join(packageRoot, 'package.json')];
      const hidden = files.filter((path) => !/^\/usr\/(bin|lib)\//.test(path));
      expect(hidden.length).toBeGreaterThan(0);
      const code = `import os\n[os.path.exists(path) for path in ${JSON.stringify(hidden)}]`;
      expect(await outcomeOf(tool, code)).toBe(`ok: [${hidden.map(() => 'False').join(', ')}]`);
    });
  });

  test('200 calls at once: a few at a time, and all end', async () => {
    const registry = createToolRegistry([tool], { clock: systemClock });
    let most = 0;
    const timer = setInterval(() => {
      most = Math.max(most, descendants(process.pid, 1).length);
    }, 10);
    const calls = Array.from({ length: 200 }, (_, i) =>
      registry.call('python', JSON.stringify({ code: i % 20 === 0 ? '1/0' : `${i} * 2` })),
    );
    const outcomes = await leavingNothing(() => Promise.all(calls));
    clearInterval(timer);
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(LIMITS.pythonConcurrencyMax);
    expect(outcomes.map(({ result }) => result)).toEqual(
      outcomes.map((_, i) =>
        i % 20 === 0 ? 'error: line 1: ZeroDivisionError: division by zero' : `${i * 2}`,
      ),
    );
  });

  test('a call that is given up is ended at once', async () => {
    const controller = new AbortController();
    const outcome = leavingNothing(() =>
      outcomeOf(tool, 'import time\ntime.sleep(60)', controller.signal),
    );
    await until(() => descendants(process.pid).length >= 3);
    controller.abort();
    expect(await outcome).toBe('request_cancelled: the call was cancelled');
    expect(await outcomeOf(tool, '1', controller.signal)).toMatch(/^request_cancelled/);
  });

  test('a server that is killed takes its programs with it', async () => {
    const module = builtModule(import.meta.url, './python-tool.ts').href;
    const source = `const { tool } = await (await import(${JSON.stringify(module)})).offerPython();
      await tool.run({ code: 'import time; time.sleep(60)' }, new AbortController().signal);`;
    const server = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: 'ignore',
    });
    const programs = (): number[] => descendants(server.pid as number);
    // The self-test has ended when a program lasts.
    let [before, lasting] = [-1, 0];
    await until(() => {
      const [last = -1] = programs().slice(2);
      lasting = last === before && last !== -1 ? lasting + 1 : 0;
      before = last;
      return lasting > 50;
    });
    const pids = programs();
    expect(pids.length).toBeGreaterThanOrEqual(3);
    server.kill('SIGKILL');
    await until(() => !pids.some(alive));
  });
}
