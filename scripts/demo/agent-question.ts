/** Asks a question as an agent run: one call, the server runs the tools. */
import { AppError } from '../../core/errors.ts';
import type { Task } from '../../core/records.ts';
import { MAX_TOKENS, MAX_TOOL_CALLS, scored, type Answer } from './answer.ts';
import type { HttpClient } from './http-client.ts';

/** @throws AppError internal, or what fetch throws, when the run did not end well. */
export async function askAgent(
  client: HttpClient,
  task: Task,
  seed: number,
  temperature = 1,
): Promise<Answer> {
  const run = await client.createAgentRun({
    model: 'ramify',
    input: task.question,
    tools: task.tools,
    max_tool_calls: MAX_TOOL_CALLS,
    max_tokens: MAX_TOKENS,
    temperature,
    top_p: 1,
    top_k: 0,
    seed,
    stream: false,
    background: false,
  });
  const { trajectory_id: trajectoryId, steps } = run;
  if (run.status !== 'completed' || trajectoryId === null) {
    const why = run.error === null ? '' : `: ${run.error.code}, ${run.error.message}`;
    throw new AppError('internal', `agent run ${run.id} is ${run.status}${why}`);
  }
  const calls = steps.flatMap((step) => step.tool_call ?? []);
  return scored(client, task, {
    way: 'agent',
    trajectoryId,
    versions: [run.policy_version, ...steps.map((step) => step.policy_version)],
    answer: run.answer,
    toolCalls: calls.length,
    toolsUsed: calls.filter((call) => call.error === null).map((call) => call.name),
    ended: true,
  });
}
