/** The tables of keys, their use and the audit log; a part of db/schema.ts. */
import {
  index,
  integer,
  primaryKey,
  sqliteTable,
  text,
  uniqueIndex,
} from 'drizzle-orm/sqlite-core';
import type { Scope } from '../core/key-records.ts';
import { DEFAULT_TENANT } from '../core/records.ts';

/**
 * A secret itself is never stored, only its SHA-256; a revoked row stays, for the record. The
 * `previous_*` columns are null together.
 */
export const apiKeys = sqliteTable(
  'api_keys',
  {
    id: text().primaryKey(),
    name: text().notNull(),
    hash: text().notNull().unique(),
    scopes: text({ mode: 'json' }).$type<Scope[]>().notNull(),
    createdAt: integer('created_at').notNull(),
    revokedAt: integer('revoked_at'),
    tenant: text().notNull().default(DEFAULT_TENANT),
    prefix: text().notNull().default(''),
    expiresAt: integer('expires_at'),
    lastUsedAt: integer('last_used_at'),
    previousPrefix: text('previous_prefix'),
    previousHash: text('previous_hash'),
    previousValidUntil: integer('previous_valid_until'),
    requestsPerMinute: integer('requests_per_minute'),
    concurrency: integer(),
    tokensPerDay: integer('tokens_per_day'),
  },
  (table) => [uniqueIndex('api_keys_prefix').on(table.prefix)],
);

/** Tokens that the answers to a key had on a day (of UTC, counted from the epoch). */
export const keyUsage = sqliteTable(
  'key_usage',
  {
    keyId: text('key_id')
      .notNull()
      .references(() => apiKeys.id, { onDelete: 'cascade' }),
    day: integer().notNull(),
    promptTokens: integer('prompt_tokens').notNull(),
    completionTokens: integer('completion_tokens').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.keyId, table.day] }),
    index('key_usage_day').on(table.day),
  ],
);

/** Rows are never changed; only the newest LIMITS.auditRowsMax are kept. */
export const auditLog = sqliteTable(
  'audit_log',
  {
    id: text().primaryKey(),
    keyId: text('key_id'),
    tenant: text().notNull(),
    operation: text().notNull(),
    method: text().notNull(),
    path: text().notNull(),
    status: integer().notNull(),
    request: text({ mode: 'json' }).$type<Record<string, unknown>>().notNull(),
    requestId: text('request_id').notNull(),
    createdAt: integer('created_at').notNull(),
  },
  (table) => [index('audit_log_key').on(table.keyId, table.id)],
);
