/**
 * The keys in force. All are in memory, so a request costs a hash and a look into a map; this
 * process is the only one that changes them while it runs (the folder's lock), and what is changed
 * is durable before it is in force. While there is no key at all the API is open to this machine;
 * keys that are expired or revoked close it too.
 */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../core/clock.ts';
import { AppError, toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import type { ApiKeyRecord, SecretPrint } from '../core/key-records.ts';
import type { KeyStore } from '../db/key-store.ts';
import type { AuditTrail } from './audit.ts';
import { isSamePrint, printOf, secretOf } from './auth.ts';

export interface KeyRingDeps {
  store: KeyStore;
  clock: Clock;
  newId: NewId;
  logger: Logger;
  /** So many random bytes. */
  random?: (size: number) => Uint8Array;
}

/** What the maker of a key decides. */
export type KeyRequest = Pick<
  ApiKeyRecord,
  'name' | 'tenant' | 'scopes' | 'expiresAt' | 'requestsPerMinute' | 'concurrency' | 'tokensPerDay'
>;

export interface NewKey {
  key: ApiKeyRecord;
  /** Kept nowhere else. */
  secret: string;
}

export type KeyStatus = 'active' | 'expired' | 'revoked';

export function keyStatus({ revokedAt, expiresAt }: ApiKeyRecord, nowMs: number): KeyStatus {
  if (revokedAt !== null) return 'revoked';
  return expiresAt !== null && expiresAt <= nowMs ? 'expired' : 'active';
}

/** Whether someone could administer a server with these keys. */
export function hasUsableAdmin(keys: readonly ApiKeyRecord[], nowMs: number): boolean {
  return keys.some((key) => key.scopes.includes('admin') && keyStatus(key, nowMs) === 'active');
}

export class KeyRing {
  private readonly deps: KeyRingDeps;
  private readonly byId = new Map<string, ApiKeyRecord>();
  /** By the prefixes of secrets, replaced ones too. */
  private readonly byPrefix = new Map<string, ApiKeyRecord>();

  constructor(deps: KeyRingDeps) {
    this.deps = deps;
    for (const key of deps.store.all()) this.remember(key);
  }

  /** Whether requests need a key. */
  get required(): boolean {
    return this.byId.size > 0;
  }

  find(id: string): ApiKeyRecord | null {
    return this.byId.get(id) ?? null;
  }

  /** @throws AppError invalid_api_key */
  authenticate(secret: string | null): ApiKeyRecord {
    if (secret === null) {
      throw new AppError('invalid_api_key', 'no key: send `Authorization: Bearer rk_...`');
    }
    const now = this.deps.clock.now();
    const print = printOf(secret);
    const key = this.byPrefix.get(print.prefix);
    if (key === undefined || !isKnown(key, print, now)) {
      throw new AppError('invalid_api_key', `no key is ${shown(print)}`);
    }
    const status = keyStatus(key, now);
    if (status !== 'active') {
      const at = new Date(
        (status === 'revoked' ? key.revokedAt : key.expiresAt) ?? 0,
      ).toISOString();
      const what = status === 'revoked' ? 'was revoked' : 'expired';
      throw new AppError('invalid_api_key', `the key ${shown(print)} ${what} at ${at}`);
    }
    this.noteUse(key, now);
    return key;
  }

  /** @throws AppError invalid_request, too_many_keys */
  async create(request: KeyRequest, trail: AuditTrail | null = null): Promise<NewKey> {
    const { store, clock, newId } = this.deps;
    const now = clock.now();
    if (!this.required && !request.scopes.includes('admin')) {
      const message = 'scopes: the first key must have the scope admin, or nobody could make more';
      throw new AppError('invalid_request', message, { param: 'scopes' });
    }
    if (request.expiresAt !== null && request.expiresAt <= now) {
      const at = new Date(request.expiresAt).toISOString();
      throw new AppError('invalid_request', `expires_at: ${at} is past`, { param: 'expires_at' });
    }
    const secret = this.newSecret();
    const made = {
      ...{ ...request, ...printOf(secret), id: newId('key'), createdAt: now },
      ...{ revokedAt: null, lastUsedAt: null, previous: null },
    };
    const key = await store.create(made, trail?.take(201));
    this.remember(key);
    return { key, secret };
  }

  /** @throws AppError key_not_found */
  async revoke(id: string): Promise<ApiKeyRecord> {
    const key = await this.deps.store.revoke(id, this.deps.clock.now());
    this.remember(key);
    return key;
  }

  /** @throws AppError key_not_found, key_not_usable */
  async rotate(id: string, graceMs: number, trail: AuditTrail | null = null): Promise<NewKey> {
    const { store, clock } = this.deps;
    const now = clock.now();
    const before = this.byId.get(id);
    if (before !== undefined && keyStatus(before, now) !== 'active') {
      throw new AppError('key_not_usable', `the key ${id} is ${keyStatus(before, now)}`);
    }
    const secret = this.newSecret();
    const key = await store.rotate(
      id,
      { next: printOf(secret), previousUntil: now + graceMs },
      trail?.take(200),
    );
    this.remember(key);
    return { key, secret };
  }

  private newSecret(): string {
    return secretOf((this.deps.random ?? randomBytes)(32));
  }

  private remember(key: ApiKeyRecord): void {
    const before = this.byId.get(key.id);
    for (const prefix of [before?.prefix, before?.previous?.prefix]) {
      if (prefix !== undefined) this.byPrefix.delete(prefix);
    }
    this.byId.set(key.id, key);
    if (key.previous !== null) this.byPrefix.set(key.previous.prefix, key);
    this.byPrefix.set(key.prefix, key);
  }

  private noteUse(key: ApiKeyRecord, now: number): void {
    if (now - (key.lastUsedAt ?? 0) < LIMITS.keyUsedWriteMs) return;
    key.lastUsedAt = now;
    this.deps.store.used(key.id, now).catch((thrown: unknown) => {
      const { message } = toAppError(thrown);
      this.deps.logger.error({ keyId: key.id, message }, 'the use of a key was not stored');
    });
  }
}

function isKnown(key: ApiKeyRecord, print: SecretPrint, now: number): boolean {
  const { previous } = key;
  if (previous !== null && isSamePrint(previous, print)) return now < previous.validUntil;
  return isSamePrint(key, print);
}

/** Of what a client sent only so much goes into messages and logs. */
function shown({ prefix }: SecretPrint): string {
  return /^rk_[\w-]{8}$/.test(prefix) ? prefix : 'like this one';
}
