/** Training runs and their figures. Which change of status is sensible is the caller's business. */
import { and, asc, desc, eq, gt, inArray, isNotNull, lt, or } from 'drizzle-orm';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { TrainingMetrics, TrainingRunRecord, TrainingStatus } from '../core/records.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { trainingMetrics, trainingRuns } from './schema.ts';

export type TrainingRunChange = Partial<Omit<TrainingRunRecord, 'id' | 'createdAt'>>;

export type NewTrainingRun = Omit<TrainingRunRecord, 'request' | 'attempts'> &
  Partial<Pick<TrainingRunRecord, 'request' | 'attempts'>>;

export class TrainingStore {
  private readonly orm: Database['orm'];

  constructor(db: Database) {
    this.orm = db.orm;
  }

  create(run: NewTrainingRun): TrainingRunRecord {
    return this.orm.insert(trainingRuns).values(run).returning().get();
  }

  /** @throws AppError training_run_not_found */
  update(id: string, change: TrainingRunChange): TrainingRunRecord {
    // drizzle refuses an update that sets nothing.
    if (Object.values(change).every((value) => value === undefined)) return this.get(id);
    const run = this.orm
      .update(trainingRuns)
      .set(change)
      .where(eq(trainingRuns.id, id))
      .returning()
      .all()[0];
    return run ?? this.get(id);
  }

  find(id: string): TrainingRunRecord | null {
    return this.orm.select().from(trainingRuns).where(eq(trainingRuns.id, id)).get() ?? null;
  }

  /** @throws AppError training_run_not_found */
  get(id: string): TrainingRunRecord {
    const run = this.find(id);
    if (run === null) {
      throw new AppError('training_run_not_found', `no training run has the id ${id}`);
    }
    return run;
  }

  /** Newest first. */
  list(filter: { status?: TrainingStatus } = {}, page: PageRequest = {}): Page<TrainingRunRecord> {
    const limit = pageLimit(page);
    const rows = this.orm
      .select()
      .from(trainingRuns)
      .where(
        and(
          filter.status === undefined ? undefined : eq(trainingRuns.status, filter.status),
          page.cursor === undefined ? undefined : lt(trainingRuns.id, page.cursor),
        ),
      )
      .orderBy(desc(trainingRuns.id))
      .limit(limit + 1)
      .all();
    return toPage(rows, limit, ({ id }) => id);
  }

  /** Stores the figures of one training step; a step that is repeated replaces its figures. */
  appendMetrics(metrics: TrainingMetrics): void {
    const { runId, step, values, createdAt } = metrics;
    this.get(runId);
    this.orm
      .insert(trainingMetrics)
      .values({ runId, step, metrics: values, createdAt })
      .onConflictDoUpdate({
        target: [trainingMetrics.runId, trainingMetrics.step],
        set: { metrics: values, createdAt },
      })
      .run();
  }

  /** The figures of a run after a step, in order: at most LIMITS.trainingStepsMax rows. */
  metrics(runId: string, afterStep = -1): TrainingMetrics[] {
    const rows = this.orm
      .select()
      .from(trainingMetrics)
      .where(and(eq(trainingMetrics.runId, runId), gt(trainingMetrics.step, afterStep)))
      .orderBy(asc(trainingMetrics.step))
      .limit(LIMITS.trainingStepsMax)
      .all();
    return rows.map(({ metrics, ...row }) => ({ ...row, values: metrics }));
  }

  /**
   * Runs that are not at their end, oldest first: queued, running, or interrupted and known how to
   * go on.
   */
  unfinished(): TrainingRunRecord[] {
    return this.orm
      .select()
      .from(trainingRuns)
      .where(
        or(
          inArray(trainingRuns.status, ['queued', 'running']),
          and(eq(trainingRuns.status, 'interrupted'), isNotNull(trainingRuns.request)),
        ),
      )
      .orderBy(asc(trainingRuns.id))
      .all();
  }
}
