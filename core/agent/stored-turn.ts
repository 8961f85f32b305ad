/**
 * Where a stored path stopped in its newest turn: what its last policy step says, and the calls of
 * it that have results already. Read from the log alone, so that a run goes on after a restart, or
 * after a wait for its client, as if nothing had been between.
 */
import type { StepRecord, ToolCallRecord } from '../records.ts';
import type { ParsedStep, Protocol, ToolCallRequest } from '../text/types.ts';

export interface StoredTurn {
  /** Its answered calls have the ids that the log has. */
  parsed: ParsedStep;
  /** Whether the step ended by itself, and not by a limit. */
  stopped: boolean;
  results: ToolCallRecord[];
}

/** `told`: the step's calls where their ids are known. Null: it is the policy's first turn. */
export function storedTurn(
  protocol: Protocol,
  steps: readonly StepRecord[],
  told: readonly ToolCallRequest[],
): StoredTurn | null {
  const at = steps.findLastIndex(({ kind }) => kind === 'policy');
  const step = steps[at];
  const after = steps.slice(at + 1);
  if (step === undefined || after.some(({ kind }) => kind === 'prompt')) return null;
  const parsed = protocol.parseStep(step.text);
  const answers = after.flatMap(({ toolCall }) => toolCall ?? []);
  const results: ToolCallRecord[] = [];
  const calls = parsed.calls.map((call, i) => {
    // Equal calls were run in their order.
    const place = answers.findIndex(
      (one) => one.name === call.name && one.arguments === call.arguments,
    );
    const [answer] = place === -1 ? [] : answers.splice(place, 1);
    if (answer === undefined) return { ...call, ...told[i] };
    results.push(answer);
    return { ...call, id: answer.id };
  });
  const stopped = protocol.stopTokens.includes(step.tokens.at(-1) ?? -1);
  return { parsed: { ...parsed, calls }, stopped, results };
}
