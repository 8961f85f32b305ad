/**
 * Tools as training and evaluation call them: one that is not known to be free of effects is never
 * run. Tasks that name such a tool are refused before (task-episode.ts), but an MCP server may say
 * otherwise of a tool at any time: so it is looked at again at each call, which is then answered by
 * an error.
 */
import type { ToolOutcome, ToolRunner, ToolSpec } from '../ports.ts';

export class EffectFreeTools implements ToolRunner {
  private readonly tools: ToolRunner;

  constructor(tools: ToolRunner) {
    this.tools = tools;
  }

  has(name: string): boolean {
    return this.tools.has(name);
  }

  specs(names: readonly string[]): ToolSpec[] {
    return this.tools.specs(names);
  }

  async call(name: string, argumentsJson: string, signal?: AbortSignal): Promise<ToolOutcome> {
    const free = !this.has(name) || this.specs([name])[0]?.effects === 'none';
    if (free) return this.tools.call(name, argumentsJson, signal);
    const result = `error: ${name} has effects, and such a tool is not run here`;
    return { result, error: 'tool_failed', durationMs: 0, effects: 'none', served: 'live' };
  }
}
