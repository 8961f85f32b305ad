/**
 * Server-run agents: one row a run. Writes join the group commit of the log, because a run is
 * created and ended as often as an answer is given.
 */
import { and, count, desc, eq, inArray, isNull, lt, lte, or } from 'drizzle-orm';
import { AppError } from '../core/errors.ts';
import type { AgentRunRecord, AgentRunStatus } from '../core/records.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { agentRuns } from './schema.ts';

export type AgentRunChange = Partial<Omit<AgentRunRecord, 'id' | 'createdAt'>>;

export interface AgentRunFilter {
  tenant?: string;
  status?: AgentRunStatus;
}

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

  /** With a tenant, only a run of it. */
  find(id: string, tenant?: string): AgentRunRecord | null {
    const where = and(
      eq(agentRuns.id, id),
      tenant === undefined ? undefined : eq(agentRuns.tenant, tenant),
    );
    return this.orm.select().from(agentRuns).where(where).get() ?? null;
  }

  /** @throws AppError agent_run_not_found */
  get(id: string, tenant?: string): AgentRunRecord {
    const run = this.find(id, tenant);
    if (run === null) throw new AppError('agent_run_not_found', `no agent run has the id ${id}`);
    return run;
  }

  /** Newest first. */
  list(filter: AgentRunFilter = {}, page: PageRequest = {}): Page<AgentRunRecord> {
    const limit = pageLimit(page);
    const rows = this.orm
      .select()
      .from(agentRuns)
      .where(
        and(
          filter.tenant === undefined ? undefined : eq(agentRuns.tenant, filter.tenant),
          filter.status === undefined ? undefined : eq(agentRuns.status, filter.status),
          page.cursor === undefined ? undefined : lt(agentRuns.id, page.cursor),
        ),
      )
      .orderBy(desc(agentRuns.id))
      .limit(limit + 1)
      .all();
    return toPage(rows, limit, ({ id }) => id);
  }

  /** Runs that no process can have ended: to be called at start. Oldest first. */
  unfinished(): AgentRunRecord[] {
    return this.orm
      .select()
      .from(agentRuns)
      .where(inArray(agentRuns.status, ['queued', 'in_progress']))
      .orderBy(agentRuns.id)
      .all();
  }

  /** Runs that have waited for their clients until now, or for longer. */
  expired(nowMs: number): AgentRunRecord[] {
    const { status, waitsUntil } = agentRuns;
    return this.orm
      .select()
      .from(agentRuns)
      .where(and(eq(status, 'requires_action'), or(isNull(waitsUntil), lte(waitsUntil, nowMs))))
      .all();
  }

  /** How many wait for their clients, of one key or of all: few, and found by their status. */
  countWaiting(ofKey?: string): number {
    const { status, keyId } = agentRuns;
    const isOfKey = ofKey === undefined ? undefined : eq(keyId, ofKey);
    const where = and(eq(status, 'requires_action'), isOfKey);
    return this.orm.select({ rows: count() }).from(agentRuns).where(where).get()?.rows ?? 0;
  }

  /** Policy versions of runs that have not ended. */
  versionsInUse(): number[] {
    const { status, policyVersion } = agentRuns;
    return this.orm
      .selectDistinct({ version: policyVersion })
      .from(agentRuns)
      .where(inArray(status, ['queued', 'in_progress', 'requires_action']))
      .all()
      .flatMap(({ version }) => version ?? []);
  }
}
