/** What a client sends for the calls that an agent run waits for, as results for the policy. */
import { AppError } from '../core/errors.ts';
import type { AgentRunRecord, ToolCallRecord } from '../core/records.ts';
import { waitingCalls } from './agent-run-view.ts';
import type { Schemas } from './handlers.ts';

export type ToolOutput = Schemas['ToolOutput'];

/**
 * In the order of the calls. `waitedMs`: since the run began to wait.
 * @throws AppError invalid_request for an id that is unknown, given twice or left out.
 */
export function clientResults(
  record: AgentRunRecord,
  outputs: readonly ToolOutput[],
  waitedMs: number,
): ToolCallRecord[] {
  const calls = waitingCalls(record);
  const open = new Set(calls.map(({ id }) => id));
  const given = new Map<string, string>();
  for (const [i, { tool_call_id, output }] of outputs.entries()) {
    const twice = given.has(tool_call_id);
    if (twice || !open.has(tool_call_id)) {
      const why = twice ? 'is given twice' : 'is no call that the run waits for';
      const param = `tool_outputs[${i}].tool_call_id`;
      throw new AppError('invalid_request', `${param}: '${tool_call_id}' ${why}`, { param });
    }
    given.set(tool_call_id, output);
  }
  return calls.map(({ id, name, arguments: args }) => {
    const result = given.get(id);
    if (result === undefined) {
      throw new AppError('invalid_request', `tool_outputs: the call '${id}' has no output`, {
        param: 'tool_outputs',
      });
    }
    return {
      id,
      name,
      arguments: args,
      result,
      error: null,
      durationMs: waitedMs,
      // What a client's function does is not known: it counts as the more careful of the two.
      effects: 'writes',
      served: 'client',
    };
  });
}
