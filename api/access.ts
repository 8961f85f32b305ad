/**
 * Who may call what: every operation passes here before its request is read. What an operation
 * needs stands in the contract. While there is no key, requests of this machine pass as the open
 * principal; from the first key on each needs one, but for those that the contract opens to all.
 */
import { assert } from '../core/assert.ts';
import type { ApiKeyRecord } from '../core/key-records.ts';
import { ANYONE, bearer, OPEN_PRINCIPAL, principalOf, requireScope } from './auth.ts';
import type { Principal } from './auth.ts';
import type { Contract, Operation, OperationId } from './contract/contract.ts';
import type { Handler, Handlers, Input } from './handlers.ts';
import { checkHost } from './host-check.ts';
import type { KeyRing } from './key-ring.ts';
import type { KeyUsage } from './key-usage.ts';
import type { Activity } from './lifecycle.ts';

interface Deps {
  contract: Contract;
  keys: KeyRing;
  usage: KeyUsage;
}

export interface Entry {
  principal: Principal;
  /** Null: no key was needed. */
  key: ApiKeyRecord | null;
}

/** @throws AppError invalid_api_key; forbidden while there is no key. */
export function identify({ keys }: Deps, operation: Operation, request: Request): Entry {
  if (!keys.required) {
    checkHost(request);
    return { principal: OPEN_PRINCIPAL, key: null };
  }
  if (operation.scope === null) return { principal: ANYONE, key: null };
  const key = keys.authenticate(bearer(request.headers.get('authorization')));
  return { principal: principalOf(key), key };
}

/**
 * Takes a place among the requests under way until the activity ends.
 * @throws AppError insufficient_scope, rate_limit_exceeded, insufficient_quota
 */
export function enter(
  deps: Deps,
  operation: Operation,
  { principal, key }: Entry,
  activity: Activity,
): void {
  if (key !== null) activity.whenEnded(deps.usage.enter(key));
  requireAllowed(deps, operation, principal);
}

/** By its query or its body. */
interface Asking {
  stream?: boolean;
}

/** @throws AppError queue_full, rate_limit_exceeded */
export function enterStream(
  { usage }: Deps,
  operation: Operation,
  { query, body, principal, activity }: Input<OperationId>,
): void {
  const asked = [query, body].some((part) => (part as Asking | undefined)?.stream === true);
  if (operation.streams === 'asked' ? !asked : operation.streams !== 'always') return;
  activity.whenEnded(usage.enterStream(principal.keyId));
}

/** Handlers for an operation that calls others: these check what a request to them would be. */
export function guarded<Id extends OperationId>(
  deps: Deps,
  handlers: Pick<Handlers, Id>,
): Pick<Handlers, Id> {
  const out: Partial<Record<OperationId, unknown>> = {};
  for (const [id, handler] of Object.entries(handlers) as [Id, Handler<Id>][]) {
    const operation = deps.contract.operation(id);
    const checked: Handler<Id> = (input) => {
      requireAllowed(deps, operation, input.principal);
      return handler(input);
    };
    out[id] = checked;
  }
  return out as Pick<Handlers, Id>;
}

function requireAllowed({ keys, usage }: Deps, operation: Operation, principal: Principal): void {
  if (operation.scope !== null) requireScope(principal, operation.id, operation.scope);
  if (!operation.spendsTokens || principal.keyId === null) return;
  const key = keys.find(principal.keyId);
  assert(key !== null, `the key ${principal.keyId} of a principal exists`);
  usage.requireTokens(key);
}
