/** Who may use the API, how much, and what operators did: plain data, as core/records.ts. */

/** `agent`: conversations of the own tenant. `admin`: everything, of all tenants. */
export type Scope = 'agent' | 'admin';

/** What is kept of a secret: enough to know it again, not enough to use it. */
export interface SecretPrint {
  /** Its first characters, by which it is found and shown. */
  prefix: string;
  /** SHA-256, hexadecimal. */
  hash: string;
}

/** A key of the API. The secret itself is shown once and stored nowhere. */
export interface ApiKeyRecord extends SecretPrint {
  id: string;
  name: string;
  tenant: string;
  scopes: Scope[];
  createdAt: number;
  expiresAt: number | null;
  revokedAt: number | null;
  /** About a minute exact; null: never. */
  lastUsedAt: number | null;
  /** The secret before the last rotation, which is good until then; null: none. */
  previous: (SecretPrint & { validUntil: number }) | null;
  /** Bounds of its use; null: none. */
  requestsPerMinute: number | null;
  concurrency: number | null;
  /** Prompt and completion tokens of a day, which begins at midnight UTC. */
  tokensPerDay: number | null;
}

export interface TokenUsage {
  promptTokens: number;
  completionTokens: number;
}

/** One call that changed something, or tried to, as it was answered. */
export interface AuditRecord {
  id: string;
  /** Null: no key was needed. */
  keyId: string | null;
  tenant: string;
  operation: string;
  method: string;
  path: string;
  status: number;
  /** What was asked for, cut and without secrets. */
  request: Record<string, unknown>;
  requestId: string;
  createdAt: number;
}
