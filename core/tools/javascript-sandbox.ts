/**
 * One piece of JavaScript in QuickJS (compiled to WebAssembly): a fresh runtime and context, a
 * deadline, caps on heap and stack, and nothing from outside but a `console` that collects text.
 * Math.random is seeded the same way in every call, so that a rollout can be repeated.
 *
 * Knows nothing of threads; javascript-worker.ts runs it in one.
 */
import {
  newQuickJSWASMModuleFromVariant,
  newVariant,
  RELEASE_SYNC,
  type QuickJSContext,
  type QuickJSHandle,
  type QuickJSWASMModule,
} from 'quickjs-emscripten';
import type { Clock } from '../clock.ts';
import { LIMITS } from '../limits.ts';
import type { SandboxResult } from './javascript-protocol.ts';

export interface SandboxOptions {
  timeoutMs: number;
  clock: Clock;
}

/** One more than a result may have, so that the registry sees that something was cut. */
const TEXT_CHARS_MAX = LIMITS.toolResultCharsMax + 1;

/** Runs inside the sandbox before the code: makes `console` and returns how values are shown. */
const PRELUDE = `(print) => {
  const stringify = JSON.stringify;
  const text = String;
  // Texts leave the sandbox as C strings, which end at the sign 0.
  const whole = (shown) => shown.replace(/\\0/g, '\\\\0');
  const show = (value) => {
    if (typeof value !== 'object' || value === null || value instanceof Error) return text(value);
    const json = stringify(value);
    return json === undefined ? text(value) : json;
  };
  const log = (...values) => print(whole(values.map(show).join(' ')));
  globalThis.console = { log, info: log, warn: log, error: log, debug: log };
  let state = 1;
  Math.random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
  return (value) => whole(show(value));
}`;

/** Node's type declarations do not have the constructors of WebAssembly. */
const { Memory } = (
  globalThis as unknown as {
    WebAssembly: {
      Memory: new (pages: { initial: number; maximum: number }) => object;
    };
  }
).WebAssembly;

const PAGE_BYTES = 65_536;
/** What the module starts with (its static data and stack): 16 MiB, fixed by its build. */
const INITIAL_PAGES = 256;

/**
 * Loads QuickJS into a memory that cannot grow past the heap limit. QuickJS's own setMemoryLimit
 * does not do it: this build cannot tell the size of a block, so only single huge blocks are
 * refused.
 */
export async function loadQuickJs(): Promise<QuickJSWASMModule> {
  const wasmMemory = new Memory({
    initial: INITIAL_PAGES,
    maximum: INITIAL_PAGES + LIMITS.javascriptHeapBytes / PAGE_BYTES,
  });
  return newQuickJSWASMModuleFromVariant(newVariant(RELEASE_SYNC, { wasmMemory }));
}

export interface SandboxOutcome {
  result: SandboxResult;
  /** QuickJS could not clean up, as when its memory is used up: it is not to be used again. */
  broken: boolean;
}

/**
 * The printed lines and the value of the last expression (left out when undefined). Throws only
 * when QuickJS itself failed: then the module is not to be used again either.
 */
export function runInSandbox(
  quickjs: QuickJSWASMModule,
  code: string,
  options: SandboxOptions,
): SandboxOutcome {
  const { timeoutMs, clock } = options;
  const runtime = quickjs.newRuntime();
  runtime.setMaxStackSize(LIMITS.javascriptStackBytes);
  const deadline = clock.now() + timeoutMs;
  let interrupted = false;
  runtime.setInterruptHandler(() => {
    interrupted ||= clock.now() > deadline;
    return interrupted;
  });
  const context = runtime.newContext();
  const run = new SandboxRun(context);
  const error = run.execute(code);
  // Code that shows nothing at all still answers something that can be read.
  const text = run.lines.length === 0 ? 'undefined' : run.lines.join('\n');
  const outcome = (result: SandboxResult): SandboxOutcome => {
    try {
      run.dispose();
      context.dispose();
      runtime.dispose();
      return { result, broken: false };
    } catch {
      return { result, broken: true };
    }
  };
  if (interrupted) {
    const message = `the code ran longer than ${timeoutMs} ms`;
    return outcome({ ok: false, reason: 'timeout', message });
  }
  if (error !== null) return outcome({ ok: false, reason: 'error', message: error });
  return outcome({ ok: true, text: text.slice(0, TEXT_CHARS_MAX) });
}

type Thrown = { name?: unknown; message?: unknown } | string | number | bigint | boolean | null;

class SandboxRun {
  readonly lines: string[] = [];
  private chars = 0;
  private readonly context: QuickJSContext;
  private readonly handles: QuickJSHandle[] = [];

  constructor(context: QuickJSContext) {
    this.context = context;
  }

  /** Null, or the error that the code ended with. */
  execute(code: string): string | null {
    const { context } = this;
    const print = this.keep(
      context.newFunction('print', (line) => {
        this.print(line);
      }),
    );
    const prelude = this.settle(context.evalCode(PRELUDE, 'prelude.js'));
    if (typeof prelude === 'string') return prelude;
    const show = this.settle(context.callFunction(prelude, context.undefined, print));
    if (typeof show === 'string') return show;
    let value = this.settle(context.evalCode(code, 'code.js', { type: 'global' }));
    if (typeof value === 'string') return value;
    value = this.resolved(value);
    if (typeof value === 'string') return value;
    if (context.typeof(value) === 'undefined') return null;
    const shown = this.settle(context.callFunction(show, context.undefined, value));
    if (typeof shown === 'string') return shown;
    this.print(shown);
    return null;
  }

  dispose(): void {
    for (const handle of this.handles) if (handle.alive) handle.dispose();
  }

  private keep(handle: QuickJSHandle): QuickJSHandle {
    this.handles.push(handle);
    return handle;
  }

  /** The value, or the error's text. */
  private settle(result: ReturnType<QuickJSContext['evalCode']>): QuickJSHandle | string {
    if (result.error) return this.errorText(this.keep(result.error));
    return this.keep(result.value);
  }

  /** What a promise resolves to, after all pending jobs; any other value as it is. */
  private resolved(value: QuickJSHandle): QuickJSHandle | string {
    const jobs = this.context.runtime.executePendingJobs();
    if (jobs.error) return this.errorText(this.keep(jobs.error));
    const state = this.context.getPromiseState(value);
    if (state.type === 'fulfilled') return this.keep(state.value);
    if (state.type === 'rejected') return this.errorText(this.keep(state.error));
    return 'the promise was never settled (there are no timers)';
  }

  private print(line: QuickJSHandle): void {
    if (this.chars >= TEXT_CHARS_MAX) return;
    const text = this.context.getString(line).slice(0, TEXT_CHARS_MAX - this.chars);
    this.lines.push(text);
    this.chars += text.length + 1;
  }

  private errorText(error: QuickJSHandle): string {
    const thrown = this.context.dump(error) as Thrown;
    // With no memory left QuickJS cannot make an error: null or an empty text comes in its place.
    if (thrown === null || thrown === '') return 'nothing was thrown, or the memory is used up';
    if (typeof thrown !== 'object') return `thrown: ${String(thrown)}`;
    const { name, message } = thrown;
    if (typeof message !== 'string') return 'an object was thrown';
    return `${typeof name === 'string' ? name : 'Error'}: ${message}`.slice(0, TEXT_CHARS_MAX);
  }
}
