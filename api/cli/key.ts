/**
 * `ramify key`: keys of the API on the data folder of a stopped server, for servers without a
 * screen and for whoever has locked themselves out. A running server is asked over HTTP instead,
 * because it has its keys in memory.
 */
import { systemClock } from '../../core/clock.ts';
import { AppError } from '../../core/errors.ts';
import { idGenerator } from '../../core/ids.ts';
import type { ApiKeyRecord } from '../../core/key-records.ts';
import { quiet } from '../../core/log.ts';
import { DEFAULT_TENANT } from '../../core/records.ts';
import type { Stores } from '../../db/stores.ts';
import { KeyRing, keyStatus } from '../key-ring.ts';
import { EXIT, integer, readWords, SERVER_HELP, wrongValue } from './command.ts';
import type { Call, Command } from './command.ts';
import { reading, writing } from './data-folder.ts';
import { table } from './text.ts';

const FLAGS = {
  admin: { type: 'boolean' },
  name: { type: 'string' },
  tenant: { type: 'string' },
  days: { type: 'string' },
} as const;

const HELP = `npx ramify key create|list|revoke [words] [flags]: keys of the API.
  create               makes a key and prints it, once
    --admin            one that may do everything; the first key must be one
    --name TEXT        whose it is ("command line" when left out)
    --tenant NAME      whose conversations it sees (default)
    --days N           good for so many days; for ever when left out
  list                 all keys, without their secrets
  revoke ID            ends a key
create and revoke need the server stopped: a running one has POST /v1/admin/keys.
${SERVER_HELP}
Examples:
  npx ramify key create --admin --data /var/lib/ramify
  npx ramify key revoke key_019a...`;

type Words = ReturnType<typeof readWords<typeof FLAGS>>;

export const keyCommand: Command = {
  summary: 'keys of the API: create, list, revoke',
  help: HELP,
  run: async (call) => {
    const words = readWords(call, FLAGS, 2);
    const [action, id] = words.rest;
    if (id !== undefined && action !== 'revoke') {
      throw new AppError('invalid_request', `${id}: one word too many; --help says how to call it`);
    }
    if (action === 'create') await create(call, words);
    else if (action === 'list') await list(call, words);
    else if (action === 'revoke') await revoke(call, words, id);
    else throw wrongValue('key', action ?? '', 'create, list or revoke');
    return EXIT.done;
  },
};

const ringOf = ({ keys: store }: Stores): KeyRing =>
  new KeyRing({ store, clock: systemClock, newId: idGenerator(systemClock), logger: quiet });

async function create({ output }: Call, { flags, config }: Words): Promise<void> {
  const { admin = false, name = 'command line', tenant = DEFAULT_TENANT } = flags;
  if (!/^[a-z0-9][a-z0-9_-]{0,62}$/.test(tenant)) {
    throw wrongValue('--tenant', tenant, 'lower-case letters, digits, - and _');
  }
  const days = flags.days === undefined ? null : integer('--days', flags.days, 1, 36_500);
  const { key, secret } = await writing(config, (stores) =>
    ringOf(stores).create({
      name: name.slice(0, 100),
      tenant,
      scopes: admin ? ['admin'] : ['agent'],
      expiresAt: days === null ? null : systemClock.now() + days * 86_400_000,
      requestsPerMinute: null,
      concurrency: null,
      tokensPerDay: null,
    }),
  );
  await output.record({ object: 'key', id: key.id, secret, ...facts(key) });
  await output.text(secret);
  output.note(`${key.id}: ${key.scopes.join(', ')} of ${key.tenant}; it is shown only now`);
}

async function list({ output }: Call, { config }: Words): Promise<void> {
  const keys = await reading(config, async (stores) => stores.keys.all());
  for (const key of keys) await output.record({ object: 'key', id: key.id, ...facts(key) });
  const rows = keys.map((key) => {
    const { prefix, name, tenant, scopes, status } = facts(key);
    return [key.id, prefix, status, scopes.join(','), tenant, name];
  });
  const lines = table(['id', 'prefix', 'status', 'scopes', 'tenant', 'name'], rows);
  await output.text(lines.join('\n'));
}

async function revoke({ output }: Call, { config }: Words, id: string | undefined): Promise<void> {
  if (id === undefined) throw new AppError('invalid_request', 'key revoke needs the id of a key');
  const key = await writing(config, (stores) => ringOf(stores).revoke(id));
  await output.record({ object: 'key', id, ...facts(key) });
  output.note(`${id} is revoked`);
}

function facts(key: ApiKeyRecord) {
  const { prefix, name, tenant, scopes, expiresAt } = key;
  return {
    ...{ prefix, name, tenant, scopes },
    status: keyStatus(key, systemClock.now()),
    expires_at: expiresAt === null ? null : new Date(expiresAt).toISOString(),
  };
}
