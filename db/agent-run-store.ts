/**
 * Server-run agents: one row a run. Writes join the group commit of the log, because a run is
 * created and ended as often as an answer is given.
 */
import { and, desc, eq, inArray, lt } from 'drizzle-orm';
import { AppError } from '../core/errors.ts';
import type { AgentRunRecord, AgentRunStatus } from '../core/records.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { agentRuns } from './schema.ts';

export type AgentRunChange = Partial<Omit<AgentRunRecord, 'id' | 'createdAt'>>;

export class AgentRunStore {
  private readonly orm: Database['orm'];
  private readonly commits: GroupCommit;

  constructor(db: Database, commits: GroupCommit) {
    this.orm = db.orm;
    this.commits = commits;
  }

  /** Resolves when the run is durable. */
  create(run: AgentRunRecord): Promise<AgentRunRecord> {
    const snapshot = structuredClone(run);
    return this.commits.run(1, () => this.orm.insert(agentRuns).values(snapshot).returning().get());
  }

  /** Resolves with the changed run when it is durable. @throws AppError agent_run_not_found */
  update(id: string, change: AgentRunChange): Promise<AgentRunRecord> {
    const snapshot = structuredClone(change);
    return this.commits.run(1, () => {
      // drizzle refuses an update that sets nothing.
      if (Object.values(snapshot).every((value) => value === undefined)) return this.get(id);
      const run = this.orm
        .update(agentRuns)
        .set(snapshot)
        .where(eq(agentRuns.id, id))
        .returning()
        .all()[0];
      return run ?? this.get(id);
    });
  }

  find(id: string): AgentRunRecord | null {
    return this.orm.select().from(agentRuns).where(eq(agentRuns.id, id)).get() ?? null;
  }

  /** @throws AppError agent_run_not_found */
  get(id: string): AgentRunRecord {
    const run = this.find(id);
    if (run === null) throw new AppError('agent_run_not_found', `no agent run has the id ${id}`);
    return run;
  }

  /** Newest first. */
  list(filter: { status?: AgentRunStatus } = {}, page: PageRequest = {}): Page<AgentRunRecord> {
    const limit = pageLimit(page);
    const rows = this.orm
      .select()
      .from(agentRuns)
      .where(
        and(
          filter.status === undefined ? undefined : eq(agentRuns.status, filter.status),
          page.cursor === undefined ? undefined : lt(agentRuns.id, page.cursor),
        ),
      )
      .orderBy(desc(agentRuns.id))
      .limit(limit + 1)
      .all();
    return toPage(rows, limit, ({ id }) => id);
  }

  /**
   * To be called at start: what an earlier process left queued or in progress is marked failed; a
   * run that waits for its client's tool results is left. Returns the ids.
   */
  markInterrupted(nowMs: number): string[] {
    return this.orm
      .update(agentRuns)
      .set({
        status: 'failed',
        error: { code: 'engine_unavailable', message: 'the server stopped before the run ended' },
        endedAt: nowMs,
      })
      .where(inArray(agentRuns.status, ['queued', 'in_progress']))
      .returning({ id: agentRuns.id })
      .all()
      .map(({ id }) => id);
  }
}
