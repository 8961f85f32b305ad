/** The tables of training runs; a part of db/schema.ts. */
import { index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import type {
  GateReport,
  TrainingCounts,
  TrainingRunRecord,
  TrainingStatus,
} from '../core/records.ts';

/**
 * After a start no row is left `running` by an earlier process; what it left unfinished is `queued`
 * again, `interrupted` (nobody knows how to resume it) or `failed`.
 */
export const trainingRuns = sqliteTable(
  'training_runs',
  {
    id: text().primaryKey(),
    status: text().$type<TrainingStatus>().notNull(),
    trigger: text().$type<TrainingRunRecord['trigger']>().notNull(),
    algorithm: text().$type<TrainingRunRecord['algorithm']>().notNull(),
    settings: text({ mode: 'json' }).$type<Record<string, unknown>>().notNull(),
    baseVersion: integer('base_version'),
    candidateVersion: integer('candidate_version'),
    step: integer().notNull(),
    steps: integer().notNull(),
    counts: text({ mode: 'json' }).$type<TrainingCounts>().notNull(),
    gate: text({ mode: 'json' }).$type<GateReport>(),
    error: text(),
    createdAt: integer('created_at').notNull(),
    startedAt: integer('started_at'),
    endedAt: integer('ended_at'),
    request: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    attempts: integer().notNull().default(0),
  },
  (table) => [index('training_runs_status').on(table.status, table.id)],
);

/** One row a training step; a repeated step (a resumed run) replaces its row. */
export const trainingMetrics = sqliteTable(
  'training_metrics',
  {
    runId: text('run_id')
      .notNull()
      .references(() => trainingRuns.id, { onDelete: 'cascade' }),
    step: integer().notNull(),
    metrics: text({ mode: 'json' }).$type<Record<string, number>>().notNull(),
    createdAt: integer('created_at').notNull(),
  },
  (table) => [primaryKey({ columns: [table.runId, table.step] })],
);
