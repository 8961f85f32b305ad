/**
 * The registry of policy versions: which exist, which one is live, what was decided about each.
 * Every change of status is written together with the decision that it follows from. Knows nothing
 * of files; who registers a version has already written its directory whole.
 */
import { dirname, isAbsolute, join, relative } from 'node:path';
import { asc, desc, eq, isNull, lt, max } from 'drizzle-orm';
import { AppError } from '../core/errors.ts';
import type { PolicyDecision, PolicyRecord, PolicyStatus } from '../core/records.ts';
import { DecisionStore } from './decision-store.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { policies } from './schema.ts';

/** A policy to register; without a version it gets the next one. */
export type NewPolicy = Omit<PolicyRecord, 'version' | 'removedAt'> & { version?: number };

export interface WatchedPolicy {
  version: number;
  /** How it became live; null: it is a canary. */
  activated: PolicyDecision | null;
}

/** No rollback goes to one of these. */
const TAKEN_BACK: ReadonlySet<PolicyStatus> = new Set(['rejected', 'rolled_back']);

export class PolicyStore {
  readonly decisions: DecisionStore;
  private readonly orm: Database['orm'];
  /** Where paths inside it start from, so that the folder may move; null: in memory. */
  private readonly dataFolder: string | null;

  constructor(db: Database) {
    this.orm = db.orm;
    this.decisions = new DecisionStore(db);
    this.dataFolder = db.path === ':memory:' ? null : dirname(db.path);
  }

  /** The version that the next registration will get; versions are never reused. */
  nextVersion(): number {
    const row = this.orm
      .select({ newest: max(policies.version) })
      .from(policies)
      .get();
    return (row?.newest ?? 0) + 1;
  }

  /**
   * Adds a version. One registered as `active` takes the place of the active one.
   * @throws AppError invalid_request when the version exists, policy_not_found for an unknown
   * parent.
   */
  register(policy: NewPolicy): PolicyRecord {
    return this.orm.transaction((): PolicyRecord => {
      const version = policy.version ?? this.nextVersion();
      if (this.find(version) !== null) {
        throw new AppError('invalid_request', `policy version ${version} exists already`, {
          param: 'version',
        });
      }
      if (policy.parentVersion !== null) this.get(policy.parentVersion);
      if (policy.status === 'active') this.retireActive();
      const row = this.orm
        .insert(policies)
        .values({ ...policy, version, path: this.storedPath(policy.path) })
        .returning()
        .get();
      return this.fromRow(row);
    });
  }

  /** Newest first. */
  list(page: PageRequest = {}): Page<PolicyRecord> {
    const limit = pageLimit(page);
    const before =
      page.cursor === undefined ? undefined : lt(policies.version, Number(page.cursor));
    const rows = this.orm
      .select()
      .from(policies)
      .where(before)
      .orderBy(desc(policies.version))
      .limit(limit + 1)
      .all();
    const found = toPage(rows, limit, ({ version }) => String(version));
    return { ...found, items: found.items.map((row) => this.fromRow(row)) };
  }

  find(version: number): PolicyRecord | null {
    const row = this.orm.select().from(policies).where(eq(policies.version, version)).get();
    return row === undefined ? null : this.fromRow(row);
  }

  /** @throws AppError policy_not_found */
  get(version: number): PolicyRecord {
    const policy = this.find(version);
    if (policy === null) {
      throw new AppError('policy_not_found', `no policy has the version ${version}`);
    }
    return policy;
  }

  /** The live version; null before the first activation. */
  active(): PolicyRecord | null {
    return this.withStatus('active');
  }

  /** The version that answers a share of new conversations; null when there is none. */
  canary(): PolicyRecord | null {
    return this.withStatus('canary');
  }

  /** The version that live traffic may take back: a canary, or a live one that is not settled. */
  watched(): WatchedPolicy | null {
    const canary = this.canary();
    if (canary !== null) return { version: canary.version, activated: null };
    const active = this.orm.select().from(policies).where(eq(policies.status, 'active')).get();
    if (active === undefined || active.settledAt !== null) return null;
    const activated = this.decisions.newest(active.version, ['activated']);
    // A person has decided, or there is nothing to compare it with.
    if (activated?.cause === 'request' || typeof activated?.otherVersion !== 'number') return null;
    return { version: active.version, activated };
  }

  /** Live traffic takes the version back no more, whatever of it the log forgets. */
  settle(version: number, nowMs: number): void {
    this.orm.update(policies).set({ settledAt: nowMs }).where(eq(policies.version, version)).run();
  }

  /** Every version whose files are there, oldest first: a bounded number, see retention. */
  withFiles(): PolicyRecord[] {
    const rows = this.orm
      .select()
      .from(policies)
      .where(isNull(policies.removedAt))
      .orderBy(asc(policies.version))
      .all();
    return rows.map((row) => this.fromRow(row));
  }

  /**
   * Writes a decision with the changes of status that it means: all of them or none.
   * @throws AppError policy_not_found
   */
  decide(
    decision: PolicyDecision,
    statuses: readonly (readonly [version: number, status: PolicyStatus])[] = [],
  ): void {
    this.orm.transaction(() => {
      // Those that step down first: the indexes allow one `active` and one `canary` at any time.
      const rank = (status: PolicyStatus): number =>
        status === 'active' || status === 'canary' ? 1 : 0;
      const ordered = [...statuses].sort(([, a], [, b]) => rank(a) - rank(b));
      for (const [version, status] of ordered) this.change(version, { status });
      this.decisions.add(decision);
    });
  }

  /** Its files are about to be deleted. @throws AppError policy_not_found */
  markRemoved(decision: PolicyDecision): void {
    this.orm.transaction(() => {
      this.change(decision.version, { removedAt: decision.createdAt });
      this.decisions.add(decision);
    });
  }

  /**
   * The version that a rollback goes to: the one that the active version replaced, or else its
   * parent.
   * @throws AppError nothing_to_roll_back
   */
  rollbackTarget(): PolicyRecord {
    const active = this.active();
    const replaced =
      active === null ? null : this.decisions.newest(active.version, ['activated'])?.otherVersion;
    for (const version of [replaced, active?.parentVersion]) {
      const target = version === null || version === undefined ? null : this.find(version);
      if (target !== null && !TAKEN_BACK.has(target.status)) return target;
    }
    throw new AppError('nothing_to_roll_back', 'the active policy has no version before it');
  }

  /** Where its files are now. @throws AppError policy_not_found */
  setPath(version: number, path: string): PolicyRecord {
    return this.change(version, { path: this.storedPath(path) });
  }

  private change(version: number, values: Partial<PolicyRecord>): PolicyRecord {
    this.get(version);
    const row = this.orm
      .update(policies)
      .set(values)
      .where(eq(policies.version, version))
      .returning()
      .get();
    return this.fromRow(row);
  }

  private withStatus(status: PolicyStatus): PolicyRecord | null {
    const row = this.orm.select().from(policies).where(eq(policies.status, status)).get();
    return row === undefined ? null : this.fromRow(row);
  }

  private fromRow(row: typeof policies.$inferSelect): PolicyRecord {
    const policy: PolicyRecord & { settledAt?: number | null } = { ...row };
    delete policy.settledAt;
    if (this.dataFolder === null || isAbsolute(row.path)) return policy;
    return { ...policy, path: join(this.dataFolder, row.path) };
  }

  private storedPath(path: string): string {
    if (this.dataFolder === null || !isAbsolute(path)) return path;
    const inside = relative(this.dataFolder, path);
    return inside.startsWith('..') || isAbsolute(inside) ? path : inside;
  }

  private retireActive(): void {
    this.orm.update(policies).set({ status: 'retired' }).where(eq(policies.status, 'active')).run();
  }
}
