/**
 * Runs server tools by name. Arguments are checked against the tool's JSON Schema, calls are
 * bounded in number, time and length of result, and every failure becomes an outcome whose short
 * text the policy can read: a tool that fails is something to react to, not a broken conversation.
 * A call that failed by the world (AppError.retryAfterS) is made again, where the tool wants that
 * and has no effects, ever later and within its time.
 *
 * Knows nothing of protocols, logs or recorded results.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { must } from '../assert.ts';
import type { Clock } from '../clock.ts';
import { AppError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { quiet } from '../log.ts';
import type { Logger } from '../log.ts';
import type { Tool, ToolCatalogue, ToolOutcome, ToolRunner, ToolSpec } from '../ports.ts';
import { checkOf, compileAll, compileInTurns } from './argument-schema.ts';
import type { ArgumentCheck, Compiled } from './argument-schema.ts';
import { Semaphore } from './semaphore.ts';
import type { Caller } from './semaphore.ts';

export interface ToolRegistryOptions {
  clock: Clock;
  log?: Logger;
  /** Calls that run at once, over all tools without a bound of their own or their group's. */
  concurrencyMax?: number;
  /** Calls that wait for a slot; more fail at once. */
  queueMax?: number;
}

/** Error texts are for the policy's short context; the log has the whole message. */
const ERROR_CHARS_MAX = 400;

/** What a tool may fail with on purpose; anything else counts as tool_failed. */
const TOOL_ERRORS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'tool_arguments_invalid',
  'tool_timeout',
  'tool_failed',
  'unknown_tool',
  'request_cancelled',
]);

interface Entry {
  tool: Tool;
  check: ArgumentCheck;
  /** Its own, its group's, or those of all others: who waits for a hung service holds no one up. */
  slots: Semaphore;
}

interface Call {
  entry: Entry;
  args: Record<string, unknown>;
  caller: Caller;
}

interface Group {
  names: string[];
  slots: Semaphore;
  compiled: readonly Compiled[];
}

/** Throws config_invalid when two tools share a name or a schema does not compile. */
export function createToolRegistry(
  tools: readonly Tool[],
  options: ToolRegistryOptions,
): ToolRegistry {
  const registry = new ToolRegistry(options);
  for (const tool of tools) registry.add(tool);
  return registry;
}

export class ToolRegistry implements ToolCatalogue {
  private readonly entries = new Map<string, Entry>();
  /** Of tools that come and go. */
  private readonly groups = new Map<string, Group>();
  /** Of each group, the tools that are to be its next ones. */
  private readonly coming = new Map<string, readonly Tool[]>();
  private readonly clock: Clock;
  private readonly log: Logger;
  private readonly slots: Semaphore;
  private readonly waitersMax: number;

  constructor(options: ToolRegistryOptions) {
    this.clock = options.clock;
    this.log = options.log ?? quiet;
    this.waitersMax = options.queueMax ?? LIMITS.toolQueueMax;
    this.slots = this.newSlots(options.concurrencyMax ?? LIMITS.toolConcurrencyMax);
  }

  private newSlots(slots: number): Semaphore {
    const callerWaitersMax = LIMITS.keyToolQueueMax;
    return new Semaphore({ slots, waitersMax: this.waitersMax, callerWaitersMax });
  }

  /** Throws config_invalid when the name is taken or the schema does not compile. */
  add(tool: Tool): void {
    const [compiled] = compileAll([tool]);
    this.addWith(this.slots, tool, must(compiled, 'the tool has one'));
  }

  private addWith(shared: Semaphore, tool: Tool, compiled: Compiled): void {
    if (this.entries.has(tool.name)) {
      throw new AppError('config_invalid', `two tools are called ${tool.name}`);
    }
    const { concurrencyMax } = tool;
    const slots = concurrencyMax === undefined ? shared : this.newSlots(concurrencyMax);
    this.entries.set(tool.name, { tool, check: checkOf(tool, compiled), slots });
  }

  /**
   * Puts the tools of a group in the place of those that it had: those of an MCP server may change
   * at any time. One that cannot be added is left out. Calls that run are not disturbed.
   */
  replaceGroup(group: string, tools: readonly Tool[]): void {
    this.put(group, tools, compileAll(tools, this.groups.get(group)?.compiled));
  }

  /**
   * The same for tools of a stranger, whose schemas may take long to compile: others get their turn
   * between, and the old tools are there until all new ones are. A later call for the group wins.
   */
  async replaceGroupInTurns(
    group: string,
    tools: readonly Tool[],
    signal: AbortSignal,
  ): Promise<void> {
    this.coming.set(group, tools);
    const before = this.groups.get(group)?.compiled ?? [];
    const compiled = await compileInTurns(tools, before, { signal });
    if (this.coming.get(group) === tools) this.put(group, tools, compiled);
  }

  private put(group: string, tools: readonly Tool[], compiled: readonly Compiled[]): void {
    this.coming.delete(group);
    const slots = this.groups.get(group)?.slots ?? this.newSlots(LIMITS.toolGroupConcurrencyMax);
    for (const name of this.groups.get(group)?.names ?? []) this.entries.delete(name);
    const names: string[] = [];
    for (const [i, tool] of tools.entries()) {
      try {
        this.addWith(slots, tool, must(compiled[i], 'each tool has one'));
        names.push(tool.name);
      } catch (thrown) {
        this.log.warn({ group, tool: tool.name, err: thrown }, 'a tool is left out');
      }
    }
    this.groups.set(group, { names, slots, compiled });
  }

  /** Throws unknown_tool that names the first tool that does not exist. */
  specs(names: readonly string[]): ToolSpec[] {
    return names.map((name) => {
      const { description, parameters, primaryArgument, effects } = this.entry(name).tool;
      return { name, description, parameters, primaryArgument, effects };
    });
  }

  list(): ToolSpec[] {
    return this.specs([...this.entries.keys()]);
  }

  has(name: string): boolean {
    return this.entries.has(name);
  }

  callsOf(caller: Caller): ToolRunner {
    return {
      specs: (names) => this.specs(names),
      has: (name) => this.has(name),
      call: (name, argumentsJson, signal) => this.call(name, argumentsJson, signal, caller),
    };
  }

  async call(
    name: string,
    argumentsJson: string,
    signal?: AbortSignal,
    caller: Caller = null,
  ): Promise<ToolOutcome> {
    const startedAt = this.clock.now();
    const effects = this.entries.get(name)?.tool.effects ?? 'none';
    const outcome = (result: string, error: ErrorCode | null): ToolOutcome => ({
      result,
      error,
      durationMs: this.clock.now() - startedAt,
      effects,
      served: 'live',
    });
    try {
      const entry = this.entry(name);
      const args = parseArguments(entry, argumentsJson);
      return outcome(capped(await this.runBounded({ entry, args, caller }, signal)), null);
    } catch (error) {
      const code = error instanceof AppError && TOOL_ERRORS.has(error.code) ? error.code : null;
      const message = error instanceof Error ? error.message : String(error);
      if (code === null) this.log.warn({ tool: name, err: error }, 'a tool failed unexpectedly');
      return outcome(`error: ${message.slice(0, ERROR_CHARS_MAX)}`, code ?? 'tool_failed');
    }
  }

  private entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    const known = [...this.entries.keys()].join(', ') || 'none';
    throw new AppError('unknown_tool', `there is no tool ${name}; there are: ${known}`);
  }

  /** One call within its time, waiting for a slot and all tries included. */
  private async runBounded(call: Call, signal: AbortSignal | undefined): Promise<string> {
    const { tool } = call.entry;
    const controller = new AbortController();
    const timer = setTimeout(() => {
      const message = `${tool.name} took longer than ${tool.timeoutMs} ms`;
      controller.abort(new AppError('tool_timeout', message));
    }, tool.timeoutMs);
    const cancel = (): void =>
      controller.abort(new AppError('request_cancelled', `${tool.name} was cancelled`));
    signal?.addEventListener('abort', cancel, { once: true });
    if (signal?.aborted) cancel();
    try {
      return await this.runTries(call, controller.signal);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
    }
  }

  private async runTries(call: Call, signal: AbortSignal): Promise<string> {
    const { name, effects, retriesMax = 0, timeoutMs } = call.entry.tool;
    const startedAt = this.clock.now();
    for (let tries = 0; ; tries++) {
      try {
        return await this.runInSlot(call, signal);
      } catch (error) {
        const after = error instanceof AppError ? error.retryAfterS : null;
        if (after === null || effects !== 'none' || tries >= retriesMax) throw error;
        const delayMs = Math.max(after * 1_000, LIMITS.toolRetryMs * 2 ** tries);
        // Its own failure says more than that it took too long.
        if (this.clock.now() - startedAt + delayMs >= timeoutMs) throw error;
        this.log.debug({ tool: name, err: error, delayMs }, 'a tool is called again');
        await sleep(delayMs, undefined, { signal }).catch(() => signal.throwIfAborted());
      }
    }
  }

  /**
   * A tool that ignores its signal loses its slot when its time is over: one that never ends must
   * not block the others for good.
   */
  private async runInSlot({ entry, args, caller }: Call, signal: AbortSignal): Promise<string> {
    const { tool, slots } = entry;
    return slots.hold(caller, signal, () =>
      Promise.race([tool.run(args, signal), rejectionOf(signal)]),
    );
  }
}

function rejectionOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const fail = (): void => reject(signal.reason as Error);
    if (signal.aborted) fail();
    else signal.addEventListener('abort', fail, { once: true });
  });
}

function parseArguments(entry: Entry, argumentsJson: string): Record<string, unknown> {
  const { tool, check } = entry;
  const invalid = (why: string): AppError =>
    new AppError('tool_arguments_invalid', `the arguments of ${tool.name} ${why}`);
  if (argumentsJson.length > LIMITS.toolArgumentsCharsMax) {
    throw invalid(`are longer than ${LIMITS.toolArgumentsCharsMax} characters`);
  }
  let value: unknown;
  try {
    value = JSON.parse(argumentsJson);
  } catch {
    throw invalid(`are not valid JSON: ${argumentsJson.slice(0, 100)}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('are not a JSON object');
  }
  const fault = check(value);
  if (fault !== null) throw invalid(fault);
  return value as Record<string, unknown>;
}

/** At most LIMITS.toolResultCharsMax characters, the note that says so included. */
function capped(text: string): string {
  const max = LIMITS.toolResultCharsMax;
  if (text.length <= max) return text;
  const note = '\n[the rest of the result was cut]';
  let end = max - note.length;
  // Half of a surrogate pair is not text.
  const last = text.charCodeAt(end - 1);
  if (last >= 0xd800 && last <= 0xdbff) end--;
  return text.slice(0, end) + note;
}
