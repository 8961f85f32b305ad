/**
 * Logged trajectories looked at again by the engine that serves: behind live requests and rollouts,
 * a bounded number at once, until the client leaves.
 */
import { anySignal } from '../../core/any-signal.ts';
import { scoreSequence } from '../../core/agent/replay.ts';
import type { PathScore, ResampledPath } from '../../core/agent/replay.ts';
import { AppError, toAppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { StepRecord, TrajectoryRecord } from '../../core/records.ts';
import type { AppDeps } from '../app.ts';
import { requireScope, tenantSeen } from '../auth.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';
import { KeyPlaces } from '../key-places.ts';
import { pinnedName } from '../policy-service.ts';
import type { OpenedPolicy } from '../policy-service.ts';
import { drawPaths, resamplePlan } from '../resample-plan.ts';
import { stepView, trajectoryView } from '../views.ts';

type Body = Input<'replayTrajectory'>['body'];

export function replayRoutes(deps: AppDeps): Pick<Handlers, 'replayTrajectory'> {
  const { replaysMax: max, keyReplaysMax: keyMax } = LIMITS;
  const places = new KeyPlaces({ what: 'replays', max, keyMax });
  return {
    replayTrajectory: async ({ path, body, principal, activity }) => {
      refuseOthers(body);
      if (body.mode === 'resample') requireScope(principal, 'replay with mode resample', 'admin');
      // One of another tenant is not there.
      deps.stores.trajectories.mustFind(path.trajectory_id, tenantSeen(principal));
      deps.stores.recentUse.note(path.trajectory_id);
      const leave = places.enter(principal.keyId);
      const limit = AbortSignal.timeout(LIMITS.replayTimeoutMs);
      const signal = anySignal([activity.signal, limit]);
      try {
        const replay = { id: path.trajectory_id, body, keyId: principal.keyId, signal };
        return await (body.mode === 'resample' ? resampled(deps, replay) : scored(deps, replay));
      } catch (thrown) {
        if (!limit.aborted) throw thrown;
        const message = `the replay took longer than ${LIMITS.replayTimeoutMs} ms`;
        throw new AppError('request_timeout', message, { cause: thrown });
      } finally {
        leave();
      }
    },
  };
}

interface Replay {
  keyId: string | null;
  id: string;
  body: Body;
  signal: AbortSignal;
}

async function scored(deps: AppDeps, { id, body, keyId, signal }: Replay): Promise<Response> {
  const { trajectory, steps } = deps.stores.trajectories.get(id);
  const version = body.policy_version ?? trajectory.policyVersion;
  const { policy, sequence } = await opened(deps, version);
  try {
    const vocabulary = policy.tokenizer.vocabularySize;
    const score = await scoreSequence(sequence, steps, { vocabulary, signal });
    await deps.usage.count(keyId, { promptTokens: tokensOf(steps), completionTokens: 0 });
    return json<Schemas['ReplayScore']>(scoreView(trajectory, { version, steps, score }));
  } finally {
    sequence.close();
  }
}

async function resampled(deps: AppDeps, { id, body, keyId, signal }: Replay): Promise<Response> {
  const plan = resamplePlan(deps.stores, {
    trajectoryId: id,
    version: body.policy_version ?? null,
    step: body.step ?? null,
    tools: body.tools ?? 'recorded',
    offered: body.offered_tools ?? null,
    samples: body.samples ?? 1,
    temperature: body.temperature ?? 1,
    seed: body.seed ?? 1,
    maxTokens: body.max_tokens ?? null,
    maxToolCalls: body.max_tool_calls ?? null,
  });
  const { version } = plan.policy;
  // Held open while paths are drawn, so that the version stays.
  const { policy, sequence } = await opened(deps, version);
  try {
    const { clock, newId, tools } = deps;
    const { tokenizer, protocol } = policy;
    const context = { tokenizer, protocol, tools, clock, newId };
    const paths = await drawPaths(plan, { sampler: deps.engine, context, signal });
    const sampled = paths.flatMap(({ newSteps }) =>
      newSteps.filter(({ kind }) => kind === 'policy'),
    );
    const usage = { promptTokens: tokensOf(plan.prefix), completionTokens: tokensOf(sampled) };
    await deps.usage.count(keyId, usage);
    const saved = body.save === true;
    if (saved) {
      for (const { newSteps, record } of paths) {
        await deps.stores.stepLog.append({ steps: newSteps, trajectories: [record] });
      }
    }
    return json<Schemas['ReplayPaths']>({
      object: 'replay.paths',
      trajectory_id: id,
      policy_version: version,
      from_steps: plan.prefix.length,
      saved,
      paths: paths.map(pathView),
    });
  } finally {
    sequence.close();
  }
}

/** @throws AppError policy_not_found: no such version, or its files are gone. */
async function opened(deps: AppDeps, version: number): Promise<OpenedPolicy> {
  deps.stores.policies.get(version);
  try {
    return await deps.policies.open(pinnedName(version), { priority: 'evaluation' });
  } catch (thrown) {
    const error = toAppError(thrown);
    if (error.code !== 'model_not_found') throw error;
    const message = `policy ${version} cannot be loaded: its files are not there any more`;
    throw new AppError('policy_not_found', message, { param: 'policy_version', cause: error });
  }
}

function tokensOf(steps: readonly StepRecord[]): number {
  return steps.reduce((sum, { tokens }) => sum + tokens.length, 0);
}

/** A field of the other mode would do nothing. */
function refuseOthers({ mode = 'score', policy_version: _, ...others }: Body): void {
  const [name] = Object.keys(others);
  if (mode === 'resample' || name === undefined) return;
  throw new AppError('invalid_request', `${name} does nothing with mode score`, { param: name });
}

function scoreView(
  { id, policyVersion }: TrajectoryRecord,
  { version, steps, score }: { version: number; steps: readonly StepRecord[]; score: PathScore },
): Schemas['ReplayScore'] {
  const logged = new Map(steps.map((step) => [step.id, step.logprobs]));
  return {
    object: 'replay.score',
    trajectory_id: id,
    logged_policy_version: policyVersion,
    policy_version: version,
    tokens: score.tokens,
    max_drift: score.maxDrift,
    mean_drift: score.meanDrift,
    logprob_mean: score.meanLogprob,
    logged_logprob_mean: score.meanLoggedLogprob,
    steps: score.steps.map(({ stepId, logprobs, entropies }) => {
      const before = logged.get(stepId) ?? null;
      return {
        step_id: stepId,
        logprobs: Array.from(logprobs),
        entropies: Array.from(entropies),
        drift: Array.from(logprobs, (value, i) => value - (before?.[i] ?? NaN)),
      };
    }),
  };
}

function pathView({
  record,
  newSteps,
  correct,
}: ResampledPath): Schemas['ReplayPaths']['paths'][0] {
  return {
    trajectory: trajectoryView(record),
    correct,
    steps: newSteps.map((step) => stepView(step)),
  };
}
