/**
 * The registry of policy versions: which exist, which one is live, what the gate said about each.
 * Knows nothing of files; who registers a version has already written its directory whole.
 */
import { desc, eq, lt, max } from 'drizzle-orm';
import { AppError } from '../core/errors.ts';
import type { GateReport, PolicyRecord, PolicyStatus } from '../core/records.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { policies } from './schema.ts';

/** A policy to register; without a version it gets the next one. */
export type NewPolicy = Omit<PolicyRecord, 'version'> & { version?: number };

export class PolicyStore {
  private readonly orm: Database['orm'];

  constructor(db: Database) {
    this.orm = db.orm;
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
      return this.orm
        .insert(policies)
        .values({ ...policy, version })
        .returning()
        .get();
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
    return toPage(rows, limit, ({ version }) => String(version));
  }

  find(version: number): PolicyRecord | null {
    return this.orm.select().from(policies).where(eq(policies.version, version)).get() ?? null;
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
    return this.orm.select().from(policies).where(eq(policies.status, 'active')).get() ?? null;
  }

  /**
   * Makes a version the live one and retires the one before, in one transaction. Activating the
   * active one changes nothing.
   * @throws AppError policy_not_found, policy_not_activatable for a rejected one.
   */
  activate(version: number): { active: PolicyRecord; previous: PolicyRecord | null } {
    return this.orm.transaction(() => {
      const policy = this.get(version);
      const previous = this.active();
      if (policy.status === 'active') return { active: policy, previous };
      if (policy.status === 'rejected') {
        throw new AppError('policy_not_activatable', `policy ${version} was rejected by the gate`);
      }
      this.retireActive();
      return { active: this.change(version, { status: 'active' }), previous };
    });
  }

  /**
   * The version that a rollback goes to: the parent of the active one.
   * @throws AppError nothing_to_roll_back
   */
  rollbackTarget(): PolicyRecord {
    const parentVersion = this.active()?.parentVersion ?? null;
    if (parentVersion === null) {
      throw new AppError('nothing_to_roll_back', 'the active policy has no parent');
    }
    return this.get(parentVersion);
  }

  /** To become active is `activate`'s business. @throws AppError policy_not_found */
  setStatus(version: number, status: Exclude<PolicyStatus, 'active'>): PolicyRecord {
    return this.change(version, { status });
  }

  /** @throws AppError policy_not_found */
  setEvaluation(version: number, evaluation: GateReport): PolicyRecord {
    return this.change(version, { evaluation });
  }

  private change(version: number, values: Partial<PolicyRecord>): PolicyRecord {
    this.get(version);
    return this.orm
      .update(policies)
      .set(values)
      .where(eq(policies.version, version))
      .returning()
      .get();
  }

  private retireActive(): void {
    this.orm.update(policies).set({ status: 'retired' }).where(eq(policies.status, 'active')).run();
  }
}
