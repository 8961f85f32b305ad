/**
 * Answers kept by Idempotency-Key, so that a call that is made again gets them again. Each tenant
 * has room for so many bytes; the oldest go first. What is too old is no answer any more, and is
 * deleted when its tenant keeps another one.
 */
import type BetterSqlite3 from 'better-sqlite3';
import { LIMITS } from '../core/limits.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';

export interface AnswerKey {
  tenant: string;
  key: string;
}

export interface KeptAnswer extends AnswerKey {
  /** Of what was asked. */
  digest: string;
  status: number;
  headers: Record<string, string>;
  body: Uint8Array;
  createdAt: number;
}

interface AnswerRow {
  digest: string;
  status: number;
  headers: string;
  body: Buffer;
  createdAt: number;
}

const FIND = `
  SELECT digest, status, headers, body, created_at AS createdAt FROM kept_answers
  WHERE tenant = @tenant AND key = @key AND created_at > @since`;

const KEEP = `
  INSERT INTO kept_answers (tenant, key, digest, status, headers, body, bytes, created_at)
  VALUES (@tenant, @key, @digest, @status, @headers, @body, @bytes, @createdAt)
  ON CONFLICT (tenant, key) DO UPDATE SET digest = excluded.digest, status = excluded.status,
    headers = excluded.headers, body = excluded.body, bytes = excluded.bytes,
    created_at = excluded.created_at`;

const FORGET_OLD = `
  DELETE FROM kept_answers WHERE rowid IN (
    SELECT rowid FROM kept_answers WHERE tenant = @tenant AND created_at <= @since LIMIT @rowsMax)`;

const NEXT_TENANT = 'SELECT min(tenant) FROM kept_answers WHERE tenant > ?';

const BYTES = 'SELECT sum(bytes) FROM kept_answers WHERE tenant = ?';

const FORGET_OLDEST = `
  DELETE FROM kept_answers WHERE rowid = (
    SELECT rowid FROM kept_answers WHERE tenant = ? ORDER BY created_at, rowid LIMIT 1)
  RETURNING bytes`;

/** Counted for a row besides its body, so that the room bounds the number of rows too. */
const ROW_BYTES = 4_096;

export class AnswerStore {
  private readonly commits: GroupCommit;
  private readonly statements: Record<'keep' | 'forgetOld', BetterSqlite3.Statement>;
  private readonly bytes: BetterSqlite3.Statement<[string], number>;
  private readonly nextTenant: BetterSqlite3.Statement<[string], string | null>;
  private readonly forgetOldest: BetterSqlite3.Statement<[string], number>;
  private readonly findOne: BetterSqlite3.Statement<[Record<string, unknown>], AnswerRow>;

  constructor(db: Database, commits: GroupCommit) {
    this.commits = commits;
    this.findOne = db.sqlite.prepare(FIND);
    this.statements = {
      keep: db.sqlite.prepare(KEEP),
      forgetOld: db.sqlite.prepare(FORGET_OLD),
    };
    this.nextTenant = db.sqlite.prepare<[string], string | null>(NEXT_TENANT).pluck();
    this.bytes = db.sqlite.prepare<[string], number>(BYTES).pluck();
    this.forgetOldest = db.sqlite.prepare<[string], number>(FORGET_OLDEST).pluck();
  }

  /** Null when none was kept after `since`. */
  find({ tenant, key }: AnswerKey, since: number): KeptAnswer | null {
    const row = this.findOne.get({ tenant, key, since });
    if (row === undefined) return null;
    const headers = JSON.parse(row.headers) as Record<string, string>;
    return { tenant, key, ...row, headers };
  }

  /** Resolves when it is durable; an older one of the key is replaced. */
  keep(answer: KeptAnswer): Promise<void> {
    const { tenant, createdAt, body } = answer;
    const row = {
      ...answer,
      headers: JSON.stringify(answer.headers),
      bytes: body.byteLength + ROW_BYTES,
    };
    return this.commits.run(2, () => {
      this.statements.keep.run(row);
      this.forget(tenant, createdAt - LIMITS.idempotencyKeptMs);
    });
  }

  /**
   * Deletes some that are too old of the tenant behind another one, in the order of their names: of
   * one that keeps no more nobody else does. Resolves with where to go on; null: there are no more.
   */
  forgetExpired(after: string, nowMs: number): Promise<string | null> {
    const rowsMax = LIMITS.keptAnswersForgottenMax;
    const since = nowMs - LIMITS.idempotencyKeptMs;
    return this.commits.run(rowsMax, () => {
      const tenant = this.nextTenant.get(after) ?? null;
      if (tenant === null) return null;
      const { changes } = this.statements.forgetOld.run({ tenant, since, rowsMax });
      return changes === rowsMax ? after : tenant;
    });
  }

  private forget(tenant: string, since: number): void {
    const rowsMax = LIMITS.keptAnswersForgottenMax;
    this.statements.forgetOld.run({ tenant, since, rowsMax });
    let bytes = this.bytes.get(tenant) ?? 0;
    for (let i = 0; i < rowsMax && bytes > LIMITS.keptAnswersBytesMax; i++) {
      bytes -= this.forgetOldest.get(tenant) ?? 0;
    }
  }
}
