/**
 * Who makes a request: a principal, with a tenant whose rows it reads and writes and scopes that
 * say which operations it may call. While there is no key, everyone on this machine is the open
 * one. A secret is 256 random bits; of it only a prefix and the SHA-256 are kept, which needs no
 * salt and no slowness, because nobody can guess it.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { AppError } from '../core/errors.ts';
import { DEFAULT_TENANT } from '../core/records.ts';
import type { ApiKeyRecord, Scope, SecretPrint } from '../core/key-records.ts';

export type { Scope } from '../core/key-records.ts';

export const SCOPES: readonly Scope[] = ['agent', 'admin'];

export interface Principal {
  /** Null: no key. */
  keyId: string | null;
  tenant: string;
  scopes: readonly Scope[];
}

/** Of every request while there is no key. */
export const OPEN_PRINCIPAL: Principal = { keyId: null, tenant: DEFAULT_TENANT, scopes: SCOPES };

/** Of what needs no key where others do. */
export const ANYONE: Principal = { keyId: null, tenant: DEFAULT_TENANT, scopes: [] };

export function principalOf({ id, tenant, scopes }: ApiKeyRecord): Principal {
  return { keyId: id, tenant, scopes };
}

/** The tenant whose rows alone the principal sees; undefined: it sees those of all. */
export function tenantSeen({ tenant, scopes }: Principal): string | undefined {
  return scopes.includes('admin') ? undefined : tenant;
}

/** Admins may do what agents may. @throws AppError insufficient_scope */
export function requireScope({ scopes }: Principal, operation: string, scope: Scope): void {
  if (scopes.includes('admin') || scopes.includes(scope)) return;
  throw new AppError(
    'insufficient_scope',
    `${operation} needs a key with the scope ${scope}; this one has ${scopes.join(', ')}`,
  );
}

/** Shown characters: enough to tell keys apart; the other 208 bits stay secret. */
const PREFIX_CHARS = 'rk_'.length + 8;

/** `bytes`: 32 random ones. */
export function secretOf(bytes: Uint8Array): string {
  return `rk_${Buffer.from(bytes).toString('base64url')}`;
}

export function printOf(secret: string): SecretPrint {
  const hash = createHash('sha256').update(secret).digest('hex');
  return { prefix: secret.slice(0, PREFIX_CHARS), hash };
}

/** Whether two prints are of one secret, in a time that does not tell where they differ. */
export function isSamePrint(a: SecretPrint, b: SecretPrint): boolean {
  return timingSafeEqual(Buffer.from(a.hash, 'hex'), Buffer.from(b.hash, 'hex'));
}

/** The secret of an Authorization header; null when there is none. @throws AppError */
export function bearer(authorization: string | null): string | null {
  if (authorization === null) return null;
  const secret = /^Bearer +(\S{1,200}) *$/i.exec(authorization)?.[1];
  if (secret !== undefined) return secret;
  throw new AppError('invalid_api_key', 'the Authorization header is not `Bearer KEY`');
}
