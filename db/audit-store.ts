/** What operators did: one row a call, the newest ones kept. */
import { and, desc, eq, lt, sql } from 'drizzle-orm';
import { LIMITS } from '../core/limits.ts';
import type { AuditRecord } from '../core/key-records.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { auditLog } from './schema.ts';

export class AuditStore {
  private readonly orm: Database['orm'];
  private readonly commits: GroupCommit;

  constructor(db: Database, commits: GroupCommit) {
    this.orm = db.orm;
    this.commits = commits;
  }

  /** Resolves when it is durable. */
  add(record: AuditRecord, rowsMax: number = LIMITS.auditRowsMax): Promise<void> {
    const row = structuredClone(record);
    return this.commits.run(1, () => addAuditRow(this.orm, row, rowsMax));
  }

  /** Newest first. */
  list(filter: { keyId?: string } = {}, page: PageRequest = {}): Page<AuditRecord> {
    const limit = pageLimit(page);
    const rows = this.orm
      .select()
      .from(auditLog)
      .where(
        and(
          filter.keyId === undefined ? undefined : eq(auditLog.keyId, filter.keyId),
          page.cursor === undefined ? undefined : lt(auditLog.id, page.cursor),
        ),
      )
      .orderBy(desc(auditLog.id))
      .limit(limit + 1)
      .all();
    return toPage(rows, limit, ({ id }) => id);
  }
}

/** For a write that commits the row with what it is about. */
export function addAuditRow(
  orm: Database['orm'],
  row: AuditRecord,
  rowsMax: number = LIMITS.auditRowsMax,
): void {
  orm.insert(auditLog).values(row).run();
  // Rows are only added, so their numbers are in the order of their making.
  orm
    .delete(auditLog)
    .where(sql`rowid <= (SELECT max(rowid) FROM ${auditLog}) - ${rowsMax}`)
    .run();
}
