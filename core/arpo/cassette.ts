/**
 * Identical calls inside one group run once: a cassette in front of the tools keeps the result of
 * each call by name and canonical arguments, and answers the next one from there. A call that is
 * still running is waited for. Only tools that are known to be free of effects are kept; a failure
 * that another try may mend (time-out, full queue, cancellation) is not.
 *
 * Who asks first depends on timing, what everyone reads does not, as long as a tool gives equal
 * results for equal arguments.
 */
import { parseBoundedJson } from '../bounded-json.ts';
import type { ToolOutcome, ToolRunner, ToolSpec } from '../ports.ts';

const PASSING = new Set(['tool_timeout', 'queue_full', 'request_cancelled']);

/** Whether an outcome is a failure that another try may mend. */
export const isPassing = ({ error }: Pick<ToolOutcome, 'error'>): boolean =>
  error !== null && PASSING.has(error);

/** Holds at most as many results as calls are made through it; made for one group. */
export class Cassette implements ToolRunner {
  private readonly tools: ToolRunner;
  private readonly kept = new Map<string, Promise<ToolOutcome>>();

  constructor(tools: ToolRunner) {
    this.tools = tools;
  }

  specs(names: readonly string[]): ToolSpec[] {
    return this.tools.specs(names);
  }

  has(name: string): boolean {
    return this.tools.has(name);
  }

  /** Answers later calls that are equal to this one with its outcome. */
  record(call: { name: string; arguments: string }, outcome: ToolOutcome): void {
    this.kept.set(keyOf(call.name, call.arguments), Promise.resolve(outcome));
  }

  async call(name: string, argumentsJson: string, signal?: AbortSignal): Promise<ToolOutcome> {
    const key = keyOf(name, argumentsJson);
    const before = this.kept.get(key);
    if (before !== undefined) return { ...(await before), durationMs: 0, served: 'recorded' };
    if (!this.has(name) || this.specs([name])[0]?.effects !== 'none') {
      return this.tools.call(name, argumentsJson, signal);
    }
    const running = this.tools.call(name, argumentsJson, signal);
    this.kept.set(key, running);
    const outcome = await running;
    if (isPassing(outcome)) this.kept.delete(key);
    return outcome;
  }
}

/** Equal for calls that are equal but for spaces and the order of keys. */
function keyOf(name: string, argumentsJson: string): string {
  let canonical = argumentsJson;
  try {
    canonical = JSON.stringify(sorted(parseBoundedJson(argumentsJson)));
  } catch {
    // No JSON: the text itself tells calls apart.
  }
  return JSON.stringify([name, canonical]);
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  // A list of pairs, because an object would put keys that look like numbers first anyhow.
  const pairs = Object.entries(value).map(([key, item]) => [key, sorted(item)] as const);
  return { pairs: pairs.sort(([a], [b]) => (a < b ? -1 : 1)) };
}
