/**
 * The trail of what admins did: one row for each call that changes something or was meant to,
 * whatever its answer. A row says what was asked for in few words: long texts are cut, and what is
 * named like a secret is left out.
 */
import { LIMITS } from '../core/limits.ts';
import type { AuditRecord } from '../core/key-records.ts';
import type { Operation } from './contract/contract.ts';

/** What of a request goes into its row. */
export interface AuditedInput {
  path: object;
  query: object;
  body: unknown;
}

/** Whether a call needs an admin and changes something. */
export function isAudited({ id, scope, method }: Operation, { body }: AuditedInput): boolean {
  // An agent may replay too; only who saves new paths must be an admin.
  if (id === 'replayTrajectory') return (body as { mode?: string }).mode === 'resample';
  return scope === 'admin' && method !== 'GET';
}

/** The row of one call. A handler may take it, to store it in one commit with what it changes. */
export class AuditTrail {
  private readonly row: (status: number) => AuditRecord;
  private isTaken = false;

  constructor(row: (status: number) => AuditRecord) {
    this.row = row;
  }

  get taken(): boolean {
    return this.isTaken;
  }

  take(status: number): AuditRecord {
    this.isTaken = true;
    return this.row(status);
  }
}

const SECRET = /secret|password|passwd|authorization|api[-_]?key|credential|cookie|token$/i;
/** Their values are the caller's own and may be secrets under any name. */
const OPAQUE = /^(headers|env|environment)$/i;
const REMOVED = '(removed)';
const ITEMS_MAX = 20;
const DEPTH_MAX = 4;

export function auditedRequest(input: AuditedInput | null): AuditRecord['request'] {
  if (input === null) return {};
  const out: AuditRecord['request'] = {};
  for (const part of ['path', 'query'] as const) {
    if (Object.keys(input[part]).length > 0) out[part] = summary(input[part], 0);
  }
  if (input.body !== undefined) {
    out.body =
      typeof input.body === 'string' ? { characters: input.body.length } : summary(input.body, 0);
  }
  const { length } = JSON.stringify(out);
  if (length <= LIMITS.auditRequestCharsMax) return out;
  return {
    path: out.path ?? {},
    fields: Object.keys(input.body ?? {}).slice(0, ITEMS_MAX),
    length,
  };
}

function summary(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return cut(value);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) {
    if (depth >= DEPTH_MAX) return `(${value.length} items)`;
    const items = value.slice(0, ITEMS_MAX).map((item) => summary(item, depth + 1));
    return value.length > ITEMS_MAX ? [...items, `(${value.length} items)`] : items;
  }
  const entries = Object.entries(value as Record<string, unknown>);
  if (depth >= DEPTH_MAX) return `(${entries.length} fields)`;
  return Object.fromEntries(
    entries.slice(0, ITEMS_MAX).map(([name, inner]) => {
      if (SECRET.test(name)) return [cut(name), REMOVED];
      if (OPAQUE.test(name) && typeof inner === 'object' && inner !== null) {
        return [name, { names: Object.keys(inner).slice(0, ITEMS_MAX).map(cut) }];
      }
      return [cut(name), summary(inner, depth + 1)];
    }),
  );
}

function cut(text: string): string {
  const max: number = LIMITS.auditTextCharsMax;
  return text.length <= max ? text : `${text.slice(0, max)}… (${text.length} characters)`;
}
