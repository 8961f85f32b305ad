/** Replay, resampling: new paths from a step of one logged trajectory. */
import { REPLAY_TOOLS } from '../../core/agent/replay.ts';
import type { ResampledPath } from '../../core/agent/replay.ts';
import { LIMITS } from '../../core/limits.ts';
import type { Config } from '../config.ts';
import { drawPaths, resamplePlan } from '../resample-plan.ts';
import type { ResampleAsk, ResamplePlan } from '../resample-plan.ts';
import { trajectoryView } from '../views.ts';
import { choice, integer, number } from './command.ts';
import type { Call } from './command.ts';
import { reading, writing } from './data-folder.ts';
import { Progress } from './output.ts';
import { withPolicy } from './policy-runtime.ts';
import type { ReplayFlags } from './replay.ts';
import { percent } from './text.ts';

interface ResampleRequest {
  id: string;
  under: number | null;
  flags: ReplayFlags;
}

export async function resampleTrajectory(
  call: Call,
  config: Config,
  request: ResampleRequest,
): Promise<void> {
  const save = request.flags.save === true;
  await (save ? writing : reading)(config, async (stores) => {
    const plan = resamplePlan(stores, askOf(request));
    const { policy } = plan;
    const logger = call.output.logger(config.logLevel);
    const progress = new Progress(call.output, 'paths', plan.samples);
    const { signal } = call;
    const onPath = (done: number): void => progress.update(done);
    const paths = await withPolicy({ policy, config, logger }, (runtime) =>
      drawPaths(plan, { ...runtime, signal, onPath }),
    ).finally(() => progress.close());
    if (save) {
      for (const { newSteps, record } of paths) {
        await stores.stepLog.append({ steps: newSteps, trajectories: [record] });
      }
    }
    await tell(call, plan, paths, save);
  });
}

/** @throws AppError invalid_request */
function askOf({ id, under, flags }: ResampleRequest): ResampleAsk {
  const { step, offer, 'max-tokens': tokens, 'max-tool-calls': calls } = flags;
  return {
    trajectoryId: id,
    version: under,
    step: step === undefined ? null : integer('--step', step, 0, 1_000_000),
    tools: choice('--tools', flags.tools ?? 'recorded', REPLAY_TOOLS),
    offered: offer ?? null,
    samples: integer('--samples', flags.samples ?? '1', 1, 10_000),
    temperature: number('--temperature', flags.temperature ?? '1', 0, 2),
    seed: integer('--seed', flags.seed ?? '1', 0, 2 ** 31 - 1),
    maxTokens: tokens === undefined ? null : integer('--max-tokens', tokens, 1, 65_536),
    maxToolCalls:
      calls === undefined ? null : integer('--max-tool-calls', calls, 0, LIMITS.toolCallsMax),
  };
}

async function tell(
  { output }: Call,
  { policy, prefix, task }: ResamplePlan,
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
