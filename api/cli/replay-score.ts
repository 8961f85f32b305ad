/** Replay, scoring: batches of trajectories through the scoring graph of one version at a time. */
import { scorePaths } from '../../core/agent/replay.ts';
import type { PathScore } from '../../core/agent/replay.ts';
import { parseSettings } from '../../core/arpo/settings.ts';
import { must } from '../../core/assert.ts';
import type { Device } from '../../core/model/session.ts';
import type { TrainingSession } from '../../core/model/types.ts';
import type { StepRecord, TrajectoryRecord } from '../../core/records.ts';
import { tokensPerRun } from '../../core/trainer/memory-budget.ts';
import { scoreRows } from '../../core/trainer/rescoring.ts';
import { openTrainedPolicy } from '../../core/trainer/trained-policy.ts';
import type { PolicyStore } from '../../db/policy-store.ts';
import type { Stores } from '../../db/stores.ts';
import type { TrajectoryFilter } from '../../db/trajectory-filter.ts';
import type { Config } from '../config.ts';
import { takeDevice } from '../parts.ts';
import type { Call } from './command.ts';
import { Progress } from './output.ts';
import { table } from './text.ts';
import { trajectoriesOf } from './trajectory-flags.ts';

export interface ScoreRequest {
  id: string | null;
  filter: TrajectoryFilter;
  max: number;
  /** Null: for each the version that made it. */
  under: number | null;
  /** Whether every token's figures are told. */
  tokens: boolean;
}

/** Trajectories read before they are scored: enough to fill runs with rows of similar length. */
const BATCH = 64;

interface Tally {
  trajectories: number;
  tokens: number;
  maxDrift: number;
  driftSum: number;
}

export async function scoreTrajectories(
  { output, signal }: Call,
  { stores, config }: { stores: Stores; config: Config },
  request: ScoreRequest,
): Promise<void> {
  const device = await takeDevice(config, output.logger(config.logLevel));
  const scorer = new VersionScorer(stores.policies, device, config.trainerThreads);
  const progress = new Progress(output, 'scored', null);
  const tallies = new Map<string, Tally>();
  let count = 0;
  try {
    for (const batch of batches(chosen(stores, request), BATCH)) {
      for (const [version, members] of byVersion(batch, request.under)) {
        const paths = members.map(({ leafStepId }) => stores.trajectories.path(leafStepId));
        const scores = await scorer.score(version, paths, signal);
        for (const [i, trajectory] of members.entries()) {
          const score = must(scores[i], 'a score of each path');
          tally(tallies, `${trajectory.source} under ${version}`, score);
          await output.record(scoreRecord(trajectory, version, score, request.tokens));
        }
        progress.update((count += members.length));
      }
    }
  } finally {
    progress.close();
    await scorer.close();
  }
  const all = summed([...tallies.values()]);
  await output.record({
    object: 'replay.summary',
    trajectories: all.trajectories,
    tokens: all.tokens,
    max_drift: all.maxDrift,
    mean_drift: meanDrift(all),
  });
  const rows = [...tallies].map(([name, figures]) => cells(name, figures));
  const head = ['', 'trajectories', 'sampled tokens', 'max drift', 'mean drift'];
  if (tallies.size !== 1) rows.push(cells('all', all));
  await output.text(table(head, rows, true).join('\n'));
}

function* chosen(stores: Stores, { id, filter, max }: ScoreRequest): Generator<TrajectoryRecord> {
  if (id !== null) {
    yield stores.trajectories.get(id).trajectory;
    return;
  }
  let taken = 0;
  for (const trajectory of trajectoriesOf(stores, filter)) {
    yield trajectory;
    if (++taken >= max) return;
  }
}

/** Makes the session of a version when it is asked for, and keeps the last one. */
class VersionScorer {
  private readonly policies: PolicyStore;
  private readonly runtime: { device: Device; threads: number };
  private kept: { version: number; session: TrainingSession } | null = null;

  constructor(policies: PolicyStore, device: Device, threads: number) {
    this.policies = policies;
    this.runtime = { device, threads };
  }

  /** @throws AppError policy_not_found, policy_invalid */
  async score(
    version: number,
    paths: readonly (readonly StepRecord[])[],
    signal: AbortSignal,
  ): Promise<PathScore[]> {
    const session = await this.session(version);
    const tokenBudget = tokensPerRun(session.config);
    return scorePaths(paths, (rows) => scoreRows(rows, { session, tokenBudget, signal }));
  }

  async close(): Promise<void> {
    await this.kept?.session.dispose();
    this.kept = null;
  }

  private async session(version: number): Promise<TrainingSession> {
    if (this.kept?.version === version) return this.kept.session;
    await this.close();
    const { path, kind } = this.policies.get(version);
    // Nothing is trained: only the scoring graph is made.
    const job = { baseDirectory: path, baseKind: kind, candidateDirectory: path, seed: 0 };
    const { session } = openTrainedPolicy(job, parseSettings('arpo', {}, kind), this.runtime);
    this.kept = { version, session };
    return session;
  }
}

function scoreRecord(
  { id, source, policyVersion }: TrajectoryRecord,
  version: number,
  score: PathScore,
  tokens: boolean,
): object {
  return {
    object: 'replay.score',
    trajectory_id: id,
    source,
    logged_version: policyVersion,
    version,
    tokens: score.tokens,
    max_drift: score.maxDrift,
    mean_drift: score.meanDrift,
    logprob_mean: score.meanLogprob,
    logged_logprob_mean: score.meanLoggedLogprob,
    ...(tokens && {
      steps: score.steps.map(({ stepId, logprobs, entropies }) => ({
        step_id: stepId,
        logprobs: Array.from(logprobs),
        entropies: Array.from(entropies),
      })),
    }),
  };
}

function* batches<T>(items: Iterable<T>, size: number): Generator<T[]> {
  let batch: T[] = [];
  for (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

function byVersion(
  batch: readonly TrajectoryRecord[],
  under: number | null,
): Map<number, TrajectoryRecord[]> {
  const groups = new Map<number, TrajectoryRecord[]>();
  for (const trajectory of batch) {
    const version = under ?? trajectory.policyVersion;
    groups.set(version, [...(groups.get(version) ?? []), trajectory]);
  }
  return groups;
}

function tally(tallies: Map<string, Tally>, name: string, score: PathScore): void {
  const one = { trajectories: 1, tokens: score.tokens, maxDrift: score.maxDrift };
  const before = tallies.get(name);
  const now = { ...one, driftSum: score.meanDrift * score.tokens };
  tallies.set(name, before === undefined ? now : summed([before, now]));
}

function summed(tallies: readonly Tally[]): Tally {
  const sum: Tally = { trajectories: 0, tokens: 0, maxDrift: 0, driftSum: 0 };
  for (const { trajectories, tokens, maxDrift, driftSum } of tallies) {
    sum.trajectories += trajectories;
    sum.tokens += tokens;
    sum.maxDrift = Math.max(sum.maxDrift, maxDrift);
    sum.driftSum += driftSum;
  }
  return sum;
}

const meanDrift = ({ driftSum, tokens }: Tally): number => (tokens === 0 ? 0 : driftSum / tokens);

function cells(name: string, figures: Tally): string[] {
  const { trajectories, tokens, maxDrift } = figures;
  const drifts = [maxDrift, meanDrift(figures)].map((drift) => drift.toExponential(2));
  return [name, String(trajectories), String(tokens), ...drifts];
}
