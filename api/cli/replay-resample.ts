/** Replay, resampling: new paths from a step of one logged trajectory. */
import { replayTools, REPLAY_TOOLS, resample, stepsBefore } from '../../core/agent/replay.ts';
import type { ReplayTools, ResampledPath } from '../../core/agent/replay.ts';
import { episodeLimits, parseSettings } from '../../core/arpo/settings.ts';
import { mapBounded } from '../../core/arpo/concurrency.ts';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { EpisodeLimits } from '../../core/agent/types.ts';
import type { PolicyRecord, StepRecord, Task } from '../../core/records.ts';
import type { Stores } from '../../db/stores.ts';
import type { Config } from '../config.ts';
import { trajectoryView } from '../views.ts';
import { choice, integer, number } from './command.ts';
import type { Call } from './command.ts';
import { reading, writing } from './data-folder.ts';
import { Progress } from './output.ts';
import { withPolicy } from './policy-runtime.ts';
import type { PolicyRuntime } from './policy-runtime.ts';
import type { ReplayFlags } from './replay.ts';
import { percent } from './text.ts';

interface ResampleRequest {
  id: string;
  under: number | null;
  flags: ReplayFlags;
}

interface Plan {
  policy: PolicyRecord;
  task: Task | null;
  prefix: StepRecord[];
  /** Of the whole tree: siblings made calls too. */
  logged: StepRecord[];
  mode: ReplayTools;
  offered: ReadonlySet<string>;
  samples: number;
  temperature: number;
  seed: number;
  limits: EpisodeLimits;
}

export async function resampleTrajectory(
  call: Call,
  config: Config,
  request: ResampleRequest,
): Promise<void> {
  const save = request.flags.save === true;
  await (save ? writing : reading)(config, async (stores) => {
    const plan = planOf(stores, request);
    const { policy } = plan;
    const logger = call.output.logger(config.logLevel);
    const paths = await withPolicy({ policy, config, logger }, (runtime) =>
      drawAll(call, runtime, plan),
    );
    if (save) {
      for (const { newSteps, record } of paths) {
        await stores.stepLog.append({ steps: newSteps, trajectories: [record] });
      }
    }
    await tell(call, plan, paths, save);
  });
}

/** @throws AppError trajectory_not_found, policy_not_found, invalid_request */
function planOf(stores: Stores, { id, under, flags }: ResampleRequest): Plan {
  const { trajectory, steps } = stores.trajectories.get(id);
  const task = trajectory.taskId === null ? null : stores.tasks.find(trajectory.taskId);
  // Its own calls last: of equal calls they are the ones to repeat.
  const logged = [...stores.trajectories.tree(id).steps, ...steps];
  const called = logged.flatMap(({ toolCall }) => toolCall?.name ?? []);
  const first = Math.max(
    0,
    steps.findIndex(({ kind }) => kind === 'policy'),
  );
  const at = flags.step === undefined ? first : integer('--step', flags.step, 0, steps.length - 1);
  const { 'max-tokens': tokens, 'max-tool-calls': calls } = flags;
  const defaults = episodeLimits(parseSettings('arpo'));
  return {
    policy: stores.policies.get(under ?? trajectory.policyVersion),
    task,
    prefix: stepsBefore(steps, at),
    logged,
    mode: choice('--tools', flags.tools ?? 'recorded', REPLAY_TOOLS),
    offered: new Set(flags.offer ?? [...(task?.tools ?? []), ...called]),
    samples: integer('--samples', flags.samples ?? '1', 1, 10_000),
    temperature: number('--temperature', flags.temperature ?? '1', 0, 2),
    seed: integer('--seed', flags.seed ?? '1', 0, 2 ** 31 - 1),
    limits: {
      maxTokens:
        tokens === undefined ? defaults.maxTokens : integer('--max-tokens', tokens, 1, 65_536),
      maxToolCalls:
        calls === undefined
          ? defaults.maxToolCalls
          : integer('--max-tool-calls', calls, 0, LIMITS.toolCallsMax),
    },
  };
}

async function drawAll(
  { output, signal }: Call,
  { policy, sampler, context }: PolicyRuntime,
  plan: Plan,
): Promise<ResampledPath[]> {
  const held = plan.prefix.reduce((sum, { tokens }) => sum + tokens.length, 0);
  if (held >= sampler.contextTokens) {
    const message = `the path holds ${held} tokens; the window has ${sampler.contextTokens}`;
    throw new AppError('context_length_exceeded', message);
  }
  const { prefix, limits, offered, temperature, task, seed, samples } = plan;
  const tools = replayTools(context.tools, plan.mode, plan.logged);
  const progress = new Progress(output, 'paths', samples);
  const failed = new AbortController();
  let done = 0;
  try {
    return await mapBounded(
      Array.from({ length: samples }, (_, sample) => sample),
      LIMITS.batchRowsMax,
      async (sample) => {
        const path = await resample({
          ...{ sampler, prefix, limits, offered, temperature, task },
          context: { ...context, tools },
          version: policy.version,
          key: [seed, sample],
          signal: AbortSignal.any([signal, failed.signal]),
        });
        progress.update(++done);
        return path;
      },
      () => failed.abort(),
    );
  } finally {
    progress.close();
  }
}

async function tell(
  { output }: Call,
  { policy, prefix, task }: Plan,
  paths: readonly ResampledPath[],
  saved: boolean,
): Promise<void> {
  for (const { record, newSteps, correct } of paths) {
    const steps = newSteps.map(({ kind, text, toolCall }) => ({
      ...{ kind, text },
      ...(toolCall !== null && { served: toolCall.served, error: toolCall.error }),
    }));
    const facts = { object: 'replay.path', saved, correct, steps };
    await output.record({ ...trajectoryView(record), ...facts });
    const reward = record.reward === null ? '' : `, reward ${record.reward}`;
    const id = saved ? `${record.id}: ` : '';
    await output.text(`${id}${record.endReason}${reward}, answer ${record.answer ?? 'none'}`);
  }
  const right = paths.filter(({ correct }) => correct === true).length;
  const scored = task === null ? '' : `, ${percent(right / paths.length)} right`;
  const from = `from ${prefix.length} logged steps`;
  output.note(`${paths.length} paths ${from} under version ${policy.version}${scored}`);
}
