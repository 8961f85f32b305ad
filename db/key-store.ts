/**
 * Keys of the API and what was answered to them. There are few keys and the server reads them all
 * at its start, so that a request needs no SQL (api/key-ring.ts); counts of tokens join the group
 * commit of the log, with the answer that they are of.
 */
import type BetterSqlite3 from 'better-sqlite3';
import { asc, count, desc, eq, lt } from 'drizzle-orm';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { ApiKeyRecord, AuditRecord, SecretPrint, TokenUsage } from '../core/key-records.ts';
import { addAuditRow } from './audit-store.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { apiKeys, keyUsage } from './schema.ts';

type Row = typeof apiKeys.$inferSelect;

const ADD_USAGE = `
  INSERT INTO key_usage (key_id, day, prompt_tokens, completion_tokens)
  SELECT id, @day, @promptTokens, @completionTokens FROM api_keys WHERE id = @keyId
  ON CONFLICT (key_id, day) DO UPDATE SET
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens`;

export class KeyStore {
  private readonly orm: Database['orm'];
  private readonly commits: GroupCommit;
  private readonly addUsage: BetterSqlite3.Statement<[Record<string, unknown>]>;

  constructor(db: Database, commits: GroupCommit) {
    this.orm = db.orm;
    this.commits = commits;
    this.addUsage = db.sqlite.prepare(ADD_USAGE);
  }

  /** Every key of a database, oldest first; a bounded number. */
  static read({ orm }: Pick<Database, 'orm'>): ApiKeyRecord[] {
    return orm.select().from(apiKeys).orderBy(asc(apiKeys.id)).all().map(fromRow);
  }

  /** Every key, oldest first. */
  all(): ApiKeyRecord[] {
    return KeyStore.read({ orm: this.orm });
  }

  /** Newest first. */
  list(page: PageRequest = {}): Page<ApiKeyRecord> {
    const limit = pageLimit(page);
    const rows = this.orm
      .select()
      .from(apiKeys)
      .where(page.cursor === undefined ? undefined : lt(apiKeys.id, page.cursor))
      .orderBy(desc(apiKeys.id))
      .limit(limit + 1)
      .all();
    const found = toPage(rows, limit, ({ id }) => id);
    return { ...found, items: found.items.map(fromRow) };
  }

  /**
   * Resolves when it is durable, with its row of the audit log: a key whose making was not told to
   * anyone would stay in force. @throws AppError too_many_keys
   */
  create(
    key: ApiKeyRecord,
    audit: AuditRecord | null = null,
    keysMax: number = LIMITS.keysMax,
  ): Promise<ApiKeyRecord> {
    const row = toRow(key);
    return this.commits.run(2, () => {
      const rows = this.orm.select({ rows: count() }).from(apiKeys).get()?.rows ?? 0;
      if (rows >= keysMax) {
        throw new AppError('too_many_keys', `${rows} keys are on record, revoked ones included`);
      }
      if (audit !== null) addAuditRow(this.orm, audit);
      return fromRow(this.orm.insert(apiKeys).values(row).returning().get());
    });
  }

  /** One that is revoked already stays as it is. @throws AppError key_not_found */
  revoke(id: string, nowMs: number): Promise<ApiKeyRecord> {
    return this.commits.run(1, () => {
      const { revokedAt } = this.must(id);
      return this.set(id, { revokedAt: revokedAt ?? nowMs });
    });
  }

  /** The secret so far is good until `previousUntil`. @throws AppError key_not_found */
  rotate(
    id: string,
    { next, previousUntil }: { next: SecretPrint; previousUntil: number },
    audit: AuditRecord | null = null,
  ): Promise<ApiKeyRecord> {
    return this.commits.run(2, () => {
      if (audit !== null) addAuditRow(this.orm, audit);
      const { prefix, hash } = this.must(id);
      return this.set(id, {
        ...next,
        previousPrefix: prefix,
        previousHash: hash,
        previousValidUntil: previousUntil,
      });
    });
  }

  /** @throws AppError key_not_found */
  used(id: string, atMs: number): Promise<ApiKeyRecord> {
    return this.commits.run(1, () => this.set(id, { lastUsedAt: atMs }));
  }

  /** Adds to what the key had on a day. A key that is unknown has none. */
  count(keyId: string, day: number, usage: TokenUsage): Promise<void> {
    const parameters = { keyId, day, ...usage };
    return this.commits.run(1, () => void this.addUsage.run(parameters));
  }

  /** Tokens of every key on a day. */
  usageOn(day: number): Map<string, TokenUsage> {
    const rows = this.orm.select().from(keyUsage).where(eq(keyUsage.day, day)).all();
    return new Map(
      rows.map(({ keyId, promptTokens, completionTokens }) => [
        keyId,
        { promptTokens, completionTokens },
      ]),
    );
  }

  /** Forgets the days before the given one. */
  forgetUsageBefore(day: number): Promise<void> {
    return this.commits.run(1, () => {
      this.orm.delete(keyUsage).where(lt(keyUsage.day, day)).run();
    });
  }

  private must(id: string): Row {
    const row = this.orm.select().from(apiKeys).where(eq(apiKeys.id, id)).get();
    if (row === undefined) throw new AppError('key_not_found', `no key has the id ${id}`);
    return row;
  }

  private set(id: string, change: Partial<Row>): ApiKeyRecord {
    this.orm.update(apiKeys).set(change).where(eq(apiKeys.id, id)).run();
    return fromRow(this.must(id));
  }
}

function fromRow({ previousPrefix, previousHash, previousValidUntil, ...row }: Row): ApiKeyRecord {
  const isWhole = previousPrefix !== null && previousHash !== null && previousValidUntil !== null;
  const previous = isWhole
    ? { prefix: previousPrefix, hash: previousHash, validUntil: previousValidUntil }
    : null;
  return { ...row, previous };
}

function toRow({ previous, ...key }: ApiKeyRecord): Row {
  return {
    ...structuredClone(key),
    previousPrefix: previous?.prefix ?? null,
    previousHash: previous?.hash ?? null,
    previousValidUntil: previous?.validUntil ?? null,
  };
}
