/**
 * Stored responses with their items. A response keeps only what its own request brought; what it
 * goes on from is read by its chain of previous responses. Writes join the group commit of the log,
 * so that an answer and its steps become durable together.
 */
import { and, asc, desc, eq, isNotNull, isNull } from 'drizzle-orm';
import { must } from '../core/assert.ts';
import type { ResponseItem, ResponseRecord } from '../core/records.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import { responseItems, responses } from './schema.ts';

export interface ResponseItems {
  input: readonly ResponseItem[];
  output: readonly ResponseItem[];
}

export interface StoredResponse extends ResponseItems {
  record: ResponseRecord;
}

/** Undefined: all tenants. */
type Tenant = string | undefined;

export class ResponseStore {
  private readonly orm: Database['orm'];
  private readonly commits: GroupCommit;

  constructor(db: Database, commits: GroupCommit) {
    this.orm = db.orm;
    this.commits = commits;
  }

  /**
   * Resolves when the response is durable, in the place of what was stored of it before. Nobody
   * finds a hidden one, until it is removed.
   */
  save(record: ResponseRecord, items: ResponseItems, hidden = false): Promise<void> {
    const row = { ...structuredClone(record), ...(hidden && { deletedAt: record.createdAt }) };
    const side = (list: readonly ResponseItem[], output: boolean) =>
      list.map((item, position) => ({
        ...{ responseId: row.id, output, position, id: item.id },
        item: structuredClone(item),
      }));
    const rows = [...side(items.input, false), ...side(items.output, true)];
    return this.commits.run(1 + rows.length, () => {
      this.orm
        .insert(responses)
        .values(row)
        .onConflictDoUpdate({ target: responses.id, set: row })
        .run();
      this.orm.delete(responseItems).where(eq(responseItems.responseId, row.id)).run();
      for (const one of rows) this.orm.insert(responseItems).values(one).run();
    });
  }

  find(id: string, tenant: Tenant): ResponseRecord | null {
    const where = and(eq(responses.id, id), isNull(responses.deletedAt), ofTenant(tenant));
    return recordOf(this.orm.select().from(responses).where(where).get());
  }

  items(id: string): ResponseItems {
    const rows = this.orm
      .select()
      .from(responseItems)
      .where(eq(responseItems.responseId, id))
      .orderBy(asc(responseItems.position))
      .all();
    const side = (output: boolean): ResponseItem[] =>
      rows.filter((row) => row.output === output).map(({ item }) => item);
    return { input: side(false), output: side(true) };
  }

  /**
   * The response and those that it goes on from, oldest first, deleted ones too; none before more
   * than `itemsMax` items.
   */
  chain(id: string, itemsMax: number): StoredResponse[] {
    const found: StoredResponse[] = [];
    let items = 0;
    for (let next: string | null = id; next !== null && items <= itemsMax;) {
      const record = recordOf(
        this.orm.select().from(responses).where(eq(responses.id, next)).get(),
      );
      if (record === null) break;
      const own = this.items(record.id);
      found.push({ record, ...own });
      items += own.input.length + own.output.length;
      next = record.previousId;
    }
    return found.reverse();
  }

  /** The newest stored item of this id. */
  findItem(id: string, tenant: Tenant): ResponseItem | null {
    const found = this.orm
      .select({ item: responseItems.item })
      .from(responseItems)
      .innerJoin(responses, eq(responses.id, responseItems.responseId))
      .where(and(eq(responseItems.id, id), isNull(responses.deletedAt), ofTenant(tenant)))
      .orderBy(desc(responses.id))
      .limit(1)
      .get();
    return found?.item ?? null;
  }

  /** The newest response of a conversation that can be gone on from. */
  newestOfConversation(conversationId: string, tenant: Tenant): ResponseRecord | null {
    const found = this.orm
      .select()
      .from(responses)
      .where(
        and(
          eq(responses.conversationId, conversationId),
          eq(responses.status, 'completed'),
          isNull(responses.deletedAt),
          ofTenant(tenant),
        ),
      )
      .orderBy(desc(responses.id))
      .limit(1)
      .get();
    return recordOf(found);
  }

  /** Resolves when no one finds the response any more. */
  async remove(id: string, nowMs: number): Promise<void> {
    await this.commits.run(1, () => this.removeNow(id, nowMs));
  }

  /** The same as a part of a write; the conversations of all rows that are gone. */
  removeNow(id: string, nowMs: number): (string | null)[] {
    this.orm.update(responses).set({ deletedAt: nowMs }).where(eq(responses.id, id)).run();
    const gone: (string | null)[] = [];
    for (let next: string | null = id; next !== null;) {
      const row = this.purge(next);
      if (row !== null) gone.push(row.conversationId);
      next = row?.previousId ?? null;
    }
    return gone;
  }

  /** Resolves when the newest durable step of a response at work is noted. */
  advance(id: string, leafStepId: string): Promise<void> {
    return this.commits.run(1, () => {
      this.orm.update(responses).set({ leafStepId }).where(eq(responses.id, id)).run();
    });
  }

  /** Those with durable steps and no trajectory that has them, hidden ones too. */
  cut(): { record: ResponseRecord; hidden: boolean }[] {
    const rows = this.orm.select().from(responses).where(isNotNull(responses.leafStepId)).all();
    return rows.map((row) => ({
      record: must(recordOf(row), 'a row has a record'),
      hidden: row.deletedAt !== null,
    }));
  }

  /** Resolves when it is noted that the trajectory of a cut response is durable. */
  settle(id: string): Promise<void> {
    return this.commits.run(1, () => {
      this.orm.update(responses).set({ leafStepId: null }).where(eq(responses.id, id)).run();
    });
  }

  /**
   * Responses that an earlier process left at work end as failed. Returns how many there were; to
   * be called at start.
   */
  failUnfinished(error: NonNullable<ResponseRecord['error']>, nowMs: number): number {
    return this.orm
      .update(responses)
      .set({ status: 'failed', error, completedAt: nowMs })
      .where(eq(responses.status, 'in_progress'))
      .run().changes;
  }

  /** Deletes a row that is marked and that none goes on from; null: it stays. */
  private purge(id: string): Pick<ResponseRecord, 'previousId' | 'conversationId'> | null {
    const row = this.orm.select().from(responses).where(eq(responses.id, id)).get();
    if (row === undefined || row.deletedAt === null) return null;
    const next = this.orm.select().from(responses).where(eq(responses.previousId, id)).limit(1);
    if (next.get() !== undefined) return null;
    this.orm.delete(responses).where(eq(responses.id, id)).run();
    return row;
  }
}

function recordOf(row: typeof responses.$inferSelect | undefined): ResponseRecord | null {
  if (row === undefined) return null;
  const record: ResponseRecord & { deletedAt?: number | null } = { ...row };
  delete record.deletedAt;
  return record;
}

function ofTenant(tenant: Tenant) {
  return tenant === undefined ? undefined : eq(responses.tenant, tenant);
}
