/**
 * A trainer for HTTP tests: in this process, without a model. It sends what a run sends, in order
 * and awaited, and writes a candidate directory; a plan says how the run goes.
 */
import { randomUUID } from 'node:crypto';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { directorySha256 } from '../../core/trainer/candidate.ts';
import type { StartTrainer, TrainerEvent, TrainingJob } from '../../core/trainer/types.ts';
import { DEFAULT_TENANT } from '../../core/records.ts';
import type { GateReport, StepRecord, TrajectoryRecord } from '../../core/records.ts';
import { Prng } from '../../core/prng.ts';

export interface TrainerPlan {
  /** How the run ends; `hang`: only when it is cancelled. */
  end: 'pass' | 'reject' | 'fail' | 'die' | 'hang';
  /** Trajectories a step. */
  rollouts: number;
  /** Runs before the candidate is sent. */
  beforeCandidate?: () => Promise<void>;
  /** Leaves this file out of the candidate, to break it. */
  without?: string;
  /** The next processes die, each after the rollouts of such a step, the first of these first. */
  diesAt?: number[];
  /** Steps between checkpoints; absent: a process that comes after another starts over. */
  checkpointEvery?: number;
  /** What the processes were given, in order. */
  jobs?: TrainingJob[];
}

const CHECKPOINT_FILE = 'step';

const COUNTS = {
  rollouts: 2,
  branches: 1,
  toolCallsExecuted: 3,
  toolCallsSaved: 1,
  tokensSampled: 40,
};

type Outcome = Awaited<ReturnType<StartTrainer>['done']>;
type OnEvent = (event: TrainerEvent) => void | Promise<void>;

export function scriptedTrainer(plan: TrainerPlan): StartTrainer {
  return (job, onEvent) => {
    let cancel = (): void => undefined;
    const cancelled = new Promise<void>((resolve) => (cancel = resolve));
    return { done: run(plan, job, onEvent, cancelled), cancel, pid: undefined };
  };
}

async function run(
  plan: TrainerPlan,
  job: TrainingJob,
  onEvent: OnEvent,
  cancelled: Promise<void>,
): Promise<Outcome> {
  const { runId } = job;
  plan.jobs?.push(job);
  // The manager learns of the handle before the first event, as with a real process.
  await new Promise((resolve) => setImmediate(resolve));
  await onEvent({ type: 'started', runId, settings: job.settings });
  const kept = await checkpointOf(job);
  if (kept > 0) await onEvent({ type: 'resumed', runId, step: kept, savedAt: 0, refused: [] });
  const diesAt = plan.diesAt?.shift();
  for (let step = kept + 1; step <= job.steps; step++) {
    await onEvent({ type: 'rollouts', runId, step, ...rollouts(job, step, plan.rollouts) });
    if (step === diesAt) return { outcome: 'died', detail: 'SIGKILL' };
    const values = { reward_mean: step / 10, loss: -0.1 };
    await onEvent({ type: 'step', runId, step, values, counts: COUNTS });
    if (step % (plan.checkpointEvery ?? Infinity) === 0) await keepCheckpoint(job, step);
  }
  if (plan.end === 'hang') {
    await cancelled;
    await onEvent({ type: 'cancelled', runId });
    return { outcome: 'cancelled', detail: 'cancelled' };
  }
  if (plan.end === 'die') return { outcome: 'died', detail: 'SIGKILL' };
  if (plan.end === 'fail') {
    await onEvent({ type: 'failed', runId, code: 'internal', message: 'loss is not a number' });
    return { outcome: 'failed', detail: 'loss is not a number' };
  }
  await plan.beforeCandidate?.();
  const directory = job.candidateDirectory;
  const skipped = plan.without;
  await cp(job.baseDirectory, directory, {
    recursive: true,
    filter: (source) => skipped === undefined || !source.endsWith(skipped),
  });
  const sha256 = await directorySha256(directory);
  await onEvent({ type: 'candidate', runId, directory, sha256, gate: gate(plan.end === 'pass') });
  return { outcome: 'completed', detail: 'judged' };
}

async function checkpointOf({ checkpointDirectory }: TrainingJob): Promise<number> {
  const path = join(checkpointDirectory ?? '', CHECKPOINT_FILE);
  return Number(await readFile(path, 'utf8').catch(() => '0'));
}

async function keepCheckpoint({ checkpointDirectory }: TrainingJob, step: number): Promise<void> {
  if (checkpointDirectory === undefined) return;
  await mkdir(checkpointDirectory, { recursive: true });
  await writeFile(join(checkpointDirectory, CHECKPOINT_FILE), String(step));
}

function gate(passed: boolean): GateReport {
  const score = { tasks: 10, accuracy: 0.4, formatErrors: 0.1, toolCallsPerTask: 1.5 };
  return {
    passed,
    reason: passed ? 'better' : 'worse',
    tasks: 10,
    base: { all: score },
    candidate: { all: { ...score, accuracy: passed ? 0.6 : 0.2 } },
    difference: passed ? { mean: 0.2, low: 0.1, high: 0.3 } : { mean: -0.2, low: -0.3, high: -0.1 },
    tolerance: 0.02,
  };
}

/** A prompt, one root rollout with a tool call, and siblings that branch off after its result. */
export function rollouts(
  job: Pick<TrainingJob, 'runId' | 'baseVersion' | 'trainTasks'>,
  step: number,
  count: number,
): { steps: StepRecord[]; trajectories: TrajectoryRecord[] } {
  const prng = new Prng(step);
  // A step that is done again has other ids, as with the real trainer.
  const process = randomUUID();
  const id = (prefix: string, name: string): string => `${prefix}_${job.runId}-${process}-${name}`;
  const make = (name: string, parent: StepRecord | null, kind: StepRecord['kind']): StepRecord => {
    const tokens = Uint32Array.from([1, 2, 3, 4]);
    const sampled = kind === 'policy';
    const draws = (): Float32Array => Float32Array.from(tokens, () => prng.next());
    return {
      id: id('step', name),
      parentId: parent?.id ?? null,
      index: parent === null ? 0 : parent.index + 1,
      kind,
      policyVersion: job.baseVersion,
      tokens,
      logprobs: sampled ? draws().map((p) => Math.log(p)) : null,
      behaviourLogprobs: null,
      entropies: sampled ? draws() : null,
      sampling: sampled ? { temperature: 1, topP: 1, topK: 0, seed: step } : null,
      stepEntropy: sampled ? 0.2 : null,
      deltaEntropy: sampled ? 0.1 : null,
      text: name,
      toolCall: kind === 'tool' ? TOOL_CALL : null,
      startedAt: 0,
      durationMs: 1,
    };
  };
  const prompt = make('prompt', null, 'prompt');
  const call = make('call', prompt, 'policy');
  const result = make('result', call, 'tool');
  const leaves = Array.from({ length: count }, (_, i) => make(`leaf${i}`, result, 'policy'));
  const trajectories = leaves.map((leaf, i): TrajectoryRecord => ({
    id: id('traj', `leaf${i}`),
    source: 'rollout',
    tenant: DEFAULT_TENANT,
    conversationId: null,
    leafStepId: leaf.id,
    policyVersion: job.baseVersion,
    taskId: job.trainTasks[0]?.id ?? null,
    trainingRunId: job.runId,
    groupId: id('grp', 'group'),
    branchedFromStepId: i === 0 ? null : result.id,
    status: 'completed',
    endReason: 'answer',
    answer: 'Paris',
    formatOk: true,
    reward: i % 2,
    toolCalls: 1,
    sampledTokens: 8,
    createdAt: 0,
  }));
  return { steps: [prompt, call, result, ...leaves], trajectories };
}

const TOOL_CALL: StepRecord['toolCall'] = {
  id: 'call_1',
  name: 'search',
  arguments: '{"query":"France"}',
  result: 'Paris is the capital of France.',
  error: null,
  durationMs: 1,
  effects: 'none',
  served: 'live',
};
