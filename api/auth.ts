/**
 * Who makes a request: a principal, with a tenant whose rows it reads and writes and scopes that
 * say which operations it may call. While there is no key, everyone on this machine is the open
 * one.
 */
import { DEFAULT_TENANT } from '../core/records.ts';

export const SCOPES = ['agent', 'admin'] as const;

/** `agent`: conversations of the own tenant. `admin`: everything, of all tenants. */
export type Scope = (typeof SCOPES)[number];

export interface Principal {
  /** Null: no key. */
  keyId: string | null;
  tenant: string;
  scopes: readonly Scope[];
}

/** Of every request while there is no key. */
export const OPEN_PRINCIPAL: Principal = { keyId: null, tenant: DEFAULT_TENANT, scopes: SCOPES };

/** The tenant whose rows alone the principal sees; undefined: it sees those of all. */
export function tenantSeen({ tenant, scopes }: Principal): string | undefined {
  return scopes.includes('admin') ? undefined : tenant;
}
