/**
 * What was decided about policy versions, and on what figures. Rows are only added, by the policy
 * store, in the transaction of the change of status that they explain. Knows nothing of why.
 */
import { and, desc, eq, inArray, lt } from 'drizzle-orm';
import type { PolicyDecision, PolicyDecisionKind } from '../core/records.ts';
import type { Database } from './open.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, toPage } from './page.ts';
import { policyDecisions } from './schema.ts';

export interface DecisionFilter {
  version?: number;
  trainingRunId?: string;
}

export class DecisionStore {
  private readonly orm: Database['orm'];

  constructor(db: Database) {
    this.orm = db.orm;
  }

  add(decision: PolicyDecision): PolicyDecision {
    return this.orm.insert(policyDecisions).values(decision).returning().get();
  }

  /** Newest first. */
  list(filter: DecisionFilter = {}, page: PageRequest = {}): Page<PolicyDecision> {
    const { version, trainingRunId } = filter;
    const limit = pageLimit(page);
    const rows = this.orm
      .select()
      .from(policyDecisions)
      .where(
        and(
          version === undefined ? undefined : eq(policyDecisions.version, version),
          trainingRunId === undefined
            ? undefined
            : eq(policyDecisions.trainingRunId, trainingRunId),
          page.cursor === undefined ? undefined : lt(policyDecisions.id, page.cursor),
        ),
      )
      .orderBy(desc(policyDecisions.id))
      .limit(limit + 1)
      .all();
    return toPage(rows, limit, ({ id }) => id);
  }

  /** The newest decision of one of these kinds about a version; null when there is none. */
  newest(version: number, kinds: readonly PolicyDecisionKind[]): PolicyDecision | null {
    const row = this.orm
      .select()
      .from(policyDecisions)
      .where(and(eq(policyDecisions.version, version), inArray(policyDecisions.kind, [...kinds])))
      .orderBy(desc(policyDecisions.id))
      .limit(1)
      .get();
    return row ?? null;
  }
}
