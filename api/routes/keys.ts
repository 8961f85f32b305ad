/** Keys of the API: make, list, revoke, rotate; and the trail of what was done with them. */
import type { AppDeps } from '../app.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';
import { keyStatus } from '../key-ring.ts';
import type { KeyRequest, NewKey } from '../key-ring.ts';
import { DEFAULT_TENANT } from '../../core/records.ts';
import type { ApiKeyRecord, AuditRecord } from '../../core/key-records.ts';
import { listView, time, timeOrNull } from '../views.ts';

type KeyOperation = 'createKey' | 'listKeys' | 'revokeKey' | 'rotateKey' | 'listAudit';

const GRACE_S = 86_400;

export function keyRoutes(deps: AppDeps): Pick<Handlers, KeyOperation> {
  const { stores, keys } = deps;
  const view = (key: ApiKeyRecord): Schemas['Key'] => keyView(deps, key);
  const made = ({ key, secret }: NewKey, status: number): Response =>
    // No cache may keep a secret.
    json<Schemas['NewKey']>(
      { key: view(key), secret },
      { status, headers: { 'cache-control': 'no-store' } },
    );
  return {
    createKey: async ({ body, trail }) => made(await keys.create(keyRequest(body), trail), 201),
    listKeys: ({ query }) => json<Schemas['KeyList']>(listView(stores.keys.list(query), view)),
    revokeKey: async ({ path }) => json<Schemas['Key']>(view(await keys.revoke(path.key_id))),
    rotateKey: async ({ path, body, trail }) => {
      const graceMs = (body.grace_seconds ?? GRACE_S) * 1000;
      return made(await keys.rotate(path.key_id, graceMs, trail), 200);
    },
    listAudit: ({ query }) => {
      const { key_id: keyId, ...page } = query;
      const found = stores.audit.list(keyId === undefined ? {} : { keyId }, page);
      return json<Schemas['AuditList']>(listView(found, auditView));
    },
  };
}

function keyRequest(body: Input<'createKey'>['body']): KeyRequest {
  const { expires_at: expiresAt = null } = body;
  return {
    name: body.name,
    tenant: body.tenant ?? DEFAULT_TENANT,
    scopes: body.scopes ?? ['agent'],
    expiresAt: expiresAt === null ? null : Date.parse(expiresAt),
    requestsPerMinute: body.requests_per_minute ?? null,
    concurrency: body.concurrency ?? null,
    tokensPerDay: body.tokens_per_day ?? null,
  };
}

function keyView({ clock, usage }: AppDeps, key: ApiKeyRecord): Schemas['Key'] {
  const now = clock.now();
  const { previous } = key;
  return {
    id: key.id,
    object: 'key',
    name: key.name,
    prefix: key.prefix,
    tenant: key.tenant,
    scopes: key.scopes,
    status: keyStatus(key, now),
    created_at: time(key.createdAt),
    expires_at: timeOrNull(key.expiresAt),
    revoked_at: timeOrNull(key.revokedAt),
    last_used_at: timeOrNull(key.lastUsedAt),
    previous_valid_until:
      previous !== null && previous.validUntil > now ? time(previous.validUntil) : null,
    requests_per_minute: key.requestsPerMinute,
    concurrency: key.concurrency,
    tokens_per_day: key.tokensPerDay,
    tokens_today: usage.tokensToday(key.id),
  };
}

function auditView(record: AuditRecord): Schemas['AuditEntry'] {
  return {
    id: record.id,
    object: 'audit.entry',
    key_id: record.keyId,
    tenant: record.tenant,
    operation: record.operation,
    method: record.method,
    path: record.path,
    status: record.status,
    request: record.request,
    request_id: record.requestId,
    created_at: time(record.createdAt),
  };
}
