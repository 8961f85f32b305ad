/** Stored responses: round trip, chains, items by id, conversations, tenants, deletion, restart. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ResponseItem, ResponseRecord } from '../core/records.ts';
import { openDatabase } from './open.ts';
import type { Stores } from './stores.ts';
import { openStores } from './stores.ts';

let stores: Stores;

beforeEach(() => {
  stores = openStores(openDatabase(':memory:'));
});
afterEach(() => stores.close());

function response(id: string, fields: Partial<ResponseRecord> = {}): ResponseRecord {
  return {
    id,
    tenant: 'default',
    status: 'completed',
    policyVersion: 3,
    settings: { store: true, tools: [] },
    previousId: null,
    conversationId: null,
    sessionId: null,
    trajectoryId: null,
    leafStepId: null,
    usage: { inputTokens: 1, cachedTokens: 0, outputTokens: 2, reasoningTokens: 1 },
    error: null,
    incompleteReason: null,
    createdAt: 5,
    completedAt: 6,
    ...fields,
  };
}

const item = (id: string): ResponseItem => ({ id, type: 'message', role: 'user' });
const items = (id: string) => ({ input: [item(`in_${id}`)], output: [item(`out_${id}`)] });

async function chainOf(...ids: string[]): Promise<void> {
  for (const [i, id] of ids.entries()) {
    await stores.responses.save(response(id, { previousId: ids[i - 1] ?? null }), items(id));
  }
}

test('a response comes back as it was saved, and as it was saved again', async () => {
  const begun = response('resp_1', { status: 'in_progress', usage: null, completedAt: null });
  await stores.responses.save(begun, { input: [item('a'), item('b')], output: [] });
  expect(stores.responses.find('resp_1', undefined)).toEqual(begun);
  const end = { ...begun, status: 'incomplete' as const, completedAt: 9 };
  await stores.responses.save(end, { input: [item('a'), item('b')], output: [item('c')] });
  expect(stores.responses.find('resp_1', 'default')).toEqual(end);
  expect(stores.responses.items('resp_1')).toEqual({
    input: [item('a'), item('b')],
    output: [item('c')],
  });
});

test('another tenant finds neither the response nor its items nor its conversation', async () => {
  const fields = { tenant: 'ann', conversationId: 'conv_1' };
  await stores.responses.save(response('resp_1', fields), items('1'));
  const { responses } = stores;
  expect(responses.find('resp_1', 'ann')).not.toBeNull();
  expect(responses.find('resp_1', 'bob')).toBeNull();
  expect(responses.findItem('out_1', 'ann')).toEqual(item('out_1'));
  expect(responses.findItem('out_1', 'bob')).toBeNull();
  expect(responses.newestOfConversation('conv_1', 'ann')?.id).toBe('resp_1');
  expect(responses.newestOfConversation('conv_1', 'bob')).toBeNull();
});

test('a chain is read oldest first, and no further than its bound', async () => {
  await chainOf('resp_1', 'resp_2', 'resp_3');
  const ids = (max: number) => stores.responses.chain('resp_3', max).map(({ record }) => record.id);
  expect(ids(10)).toEqual(['resp_1', 'resp_2', 'resp_3']);
  // Two items each: the fourth is one too many.
  expect(ids(3)).toEqual(['resp_2', 'resp_3']);
});

test('only completed responses are the newest of a conversation', async () => {
  const conversationId = 'conv_1';
  await stores.responses.save(response('resp_1', { conversationId }), items('1'));
  const cancelled = response('resp_2', { conversationId, status: 'cancelled' });
  await stores.responses.save(cancelled, items('2'));
  expect(stores.responses.newestOfConversation('conv_1', undefined)?.id).toBe('resp_1');
});

test('what was deleted is kept as the past of others, and goes with the last of them', async () => {
  await chainOf('resp_1', 'resp_2', 'resp_3');
  const { responses } = stores;
  await responses.remove('resp_1', 7);
  await responses.remove('resp_2', 8);
  expect(responses.find('resp_2', undefined)).toBeNull();
  expect(responses.findItem('out_resp_2', undefined)).toBeNull();
  expect(responses.chain('resp_3', 10)).toHaveLength(3);
  await responses.remove('resp_3', 9);
  expect(responses.chain('resp_3', 10)).toEqual([]);
  expect(responses.chain('resp_1', 10)).toEqual([]);
  expect(responses.items('resp_1')).toEqual({ input: [], output: [] });
});

test('those that an earlier process left at work have failed', async () => {
  const left = response('resp_1', { status: 'in_progress', completedAt: null });
  await stores.responses.save(left, items('1'));
  await stores.responses.save(response('resp_2'), items('2'));
  const error = { code: 'not_ready', message: 'stopped' };
  expect(stores.responses.failUnfinished(error, 9)).toBe(1);
  const failed = { status: 'failed', error, completedAt: 9 };
  expect(stores.responses.find('resp_1', undefined)).toMatchObject(failed);
  expect(stores.responses.find('resp_2', undefined)?.status).toBe('completed');
});
