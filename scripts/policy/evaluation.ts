/**
 * Held-out accuracy of a policy directory: real engine, real tools, one trajectory a task, sampled
 * at temperature 1 (as the server does by default) and greedy.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { evalScores, evaluateTasks, type EvaluatedTask } from '../../core/arpo/evaluate.ts';
import { systemClock } from '../../core/clock.ts';
import { createLocalEngine } from '../../core/engine/local-engine.ts';
import { idGenerator } from '../../core/ids.ts';
import { loadPolicyModel } from '../../core/model/policy-directory.ts';
import { packageRoot } from '../../core/paths.ts';
import type { EvalScore, Task, TaskSplit } from '../../core/records.ts';
import { loadText } from '../../core/text/load-text.ts';
import { javascriptTool } from '../../core/tools/javascript-tool.ts';
import { createToolRegistry } from '../../core/tools/registry.ts';
import { searchTool } from '../../core/tools/search-tool.ts';
import { openSearchIndex } from '../../db/search-index.ts';

/** Sampled tokens of one trajectory; the longest ideal one takes about 150. */
export const EVALUATION_LIMITS = { maxToolCalls: 6, maxTokens: 256 };

export interface PolicyEvaluation {
  sampled: Record<string, EvalScore>;
  greedy: Record<string, EvalScore>;
  /** Every sampled trajectory, for a look at what the policy does. */
  trajectories: EvaluatedTask[];
}

export function readTasks(split: TaskSplit): Task[] {
  const file = join(packageRoot, 'corpus', 'tasks', `${split}.jsonl`);
  const lines = readFileSync(file, 'utf8').trim().split('\n');
  return lines.map((line) => JSON.parse(line) as Task);
}

/** Answers all tasks twice (sampled with `seed`, greedy). */
export async function evaluatePolicy(
  directory: string,
  tasks: readonly Task[],
  seed: number,
  threads: number,
): Promise<PolicyEvaluation> {
  const sampler = await createLocalEngine({
    ...loadPolicyModel(directory),
    version: 1,
    device: 'cpu',
    threads,
  });
  const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
  const javascript = javascriptTool();
  const clock = systemClock;
  const context = {
    ...loadText(directory),
    tools: createToolRegistry([searchTool(index), javascript], { clock }),
    clock,
    newId: idGenerator(clock),
  };
  const evaluate = (temperature: number) =>
    evaluateTasks({
      sampler,
      context,
      tasks,
      version: 1,
      limits: EVALUATION_LIMITS,
      temperature,
      seed,
      runId: null,
    });
  try {
    const trajectories = await evaluate(1);
    const greedy = evalScores(await evaluate(0));
    return { sampled: evalScores(trajectories), greedy, trajectories };
  } finally {
    await sampler.close();
    await javascript.stop();
    index.close();
  }
}

/** A Markdown table of figures by family. */
export function evaluationTable({ sampled, greedy }: PolicyEvaluation): string {
  const percent = (share: number | undefined) => `${(100 * (share ?? 0)).toFixed(1)} %`;
  const rows = Object.entries(sampled).map(([family, score]) =>
    [
      '',
      family,
      score.tasks,
      percent(score.accuracy),
      percent(greedy[family]?.accuracy),
      percent(score.formatErrors),
      score.toolCallsPerTask.toFixed(2),
      '',
    ]
      .join(' | ')
      .trim(),
  );
  return [
    '| family | tasks | accuracy, sampled | accuracy, greedy | format errors | tool calls a task |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}
