/**
 * Exported trajectories stored again, a batch at a time: what has an id that is known is not
 * doubled, so an import may be repeated. Used by the command line and by HTTP.
 */
import { LIMITS } from '../core/limits.ts';
import { REWARD_METRIC } from '../db/feedback-store.ts';
import type { Stores } from '../db/stores.ts';
import type { LoggedTrajectory } from './trajectory-lines.ts';

export interface ImportCounts {
  created: number;
  known: number;
  feedback: number;
}

export class TrajectoryImport {
  readonly counts: ImportCounts = { created: 0, known: 0, feedback: 0 };
  private readonly stores: Stores;
  private readonly versions = new Set<number>();
  private batch: LoggedTrajectory[] = [];

  constructor(stores: Stores) {
    this.stores = stores;
  }

  /** Resolves when it is stored, or waits in a batch that is not full yet. */
  async add(logged: LoggedTrajectory): Promise<void> {
    this.versions.add(logged.trajectory.policyVersion);
    this.batch.push(logged);
    if (this.batch.length >= LIMITS.trajectoriesPerWrite) await this.flush();
  }

  /** Everything that was added is durable when it resolves. */
  async flush(): Promise<void> {
    const batch = this.batch;
    this.batch = [];
    const ids = batch.map(({ trajectory }) => trajectory.id);
    // An old one is not forgotten again before its feedback is there.
    await this.stores.recentUse.during(ids, () => store(this.stores, batch, this.counts));
  }

  /** Policy versions that made some of them and are not known here. */
  get unknownVersions(): number[] {
    return [...this.versions].filter((version) => this.stores.policies.find(version) === null);
  }
}

async function store(
  { trajectories, stepLog, feedback }: Stores,
  batch: readonly LoggedTrajectory[],
  counts: ImportCounts,
): Promise<void> {
  const isNew = ({ trajectory: { id } }: LoggedTrajectory): boolean =>
    trajectories.find(id) === null;
  const fresh = batch.filter(isNew);
  await stepLog.append({
    steps: fresh.flatMap(({ steps }) => steps),
    trajectories: fresh.map(({ trajectory }) => trajectory),
  });
  const given = batch.flatMap((logged) => logged.feedback);
  const stored = await Promise.all(given.map((one) => feedback.record(one)));
  counts.feedback += stored.filter(({ created }) => created).length;
  counts.created += fresh.length;
  counts.known += batch.length - fresh.length;
  // The reward may be a verifier's that is later than the last feedback, which has just set it.
  const other = fresh.filter(({ trajectory: { reward }, feedback: history }) => {
    const last = history.findLast(({ metricName }) => metricName === REWARD_METRIC);
    return last !== undefined && last.value !== reward;
  });
  await stepLog.append({ trajectories: other.map(({ trajectory }) => trajectory) });
}
