/** Cases of the operations tagged tools. */
import { gzipSync } from 'node:zlib';
import { expect } from 'vitest';
import { LIMITS } from '../../core/limits.ts';
import type { Case } from './cases.ts';
import type { CallOptions, Harness } from './harness.ts';

const line = (fields: object): string =>
  JSON.stringify({ id: 'a', text: 'Ada likes oak.', ...fields });

export const DOCUMENT = line({});

const imported = (h: Harness, body: string | Uint8Array, name = 'notes', headers = {}) =>
  h.call('importDocuments', { path: { name }, body, headers });

/** For calls that delete it or its collection. */
export async function storedDocument(h: Harness): Promise<CallOptions> {
  h.deps.collections.store.upsert('notes', [{ id: 'a', title: 'A', text: 'Ada likes oak.' }]);
  h.deps.collections.changed();
  return { path: { name: 'notes', document_id: 'a' } };
}

async function found(h: Harness, tool: string, query: string): Promise<string> {
  return (await h.deps.tools.call(tool, JSON.stringify({ query }))).result;
}

const WRONG_LINES: [string, string, string, string][] = [
  ['no JSON', '{"id":', 'invalid_json', 'line 3: not valid JSON'],
  ['no text', '{"id":"x"}', 'invalid_request', 'line 3: text: is required'],
  ['an empty id', line({ id: '' }), 'invalid_request', 'line 3: id:'],
  ['a text that is none', line({ text: 1 }), 'invalid_request', 'line 3: text:'],
  ['what is not known', line({ tags: [] }), 'invalid_request', 'line 3: tags:'],
  [
    'a text over the limit',
    line({ text: 'x'.repeat(LIMITS.documentCharsMax + 1) }),
    'invalid_request',
    'line 3: text:',
  ],
];

export const TOOL_CASES: Case[] = [
  {
    operation: 'listTools',
    what: 'the tools that there are now',
    status: 200,
    call: async (h) => {
      await imported(h, DOCUMENT);
      return h.call('listTools');
    },
    check: ({ body }) => {
      expect(body.data.map((tool: { name: string }) => tool.name)).toEqual([
        'search',
        'search_notes',
      ]);
      expect(body.data[1]).toMatchObject({
        description: expect.stringContaining('the documents of notes'),
        parameters: { required: ['query'] },
        effects: 'none',
      });
    },
  },
  {
    operation: 'listCollections',
    what: 'each with its tool and its count',
    status: 200,
    call: async (h) => {
      await imported(h, `${DOCUMENT}\n${line({ id: 'b' })}`);
      return h.call('listCollections');
    },
    check: ({ body }) =>
      expect(body.data).toMatchObject([
        { name: 'corpus', documents: 1, tool: 'search' },
        { name: 'notes', documents: 2, tool: 'search_notes' },
      ]),
  },
  {
    operation: 'importDocuments',
    what: 'new and known documents, found by the next call',
    status: 200,
    call: async (h) => {
      await imported(h, DOCUMENT);
      expect(await found(h, 'search_notes', 'oak')).toBe('Ada likes oak.');
      return imported(h, [line({ text: 'Ada likes elm.' }), '', line({ id: 'b' })].join('\n'));
    },
    check: async ({ body }, h) => {
      const counts = { created: 1, updated: 1, documents: 2 };
      expect(body).toEqual({ object: 'document.import', collection: 'notes', ...counts });
      expect(await found(h, 'search_notes', 'elm')).toBe('Ada likes elm.');
    },
  },
  {
    operation: 'importDocuments',
    what: 'a compressed body, no line',
    status: 200,
    call: (h) => imported(h, gzipSync('\n'), 'empty', { 'content-encoding': 'gzip' }),
    check: ({ body }) => expect(body).toMatchObject({ created: 0, updated: 0, documents: 0 }),
  },
  ...WRONG_LINES.map(([what, text, code, message]): Case => ({
    operation: 'importDocuments',
    what: `${what}: lines before it are stored`,
    status: 400,
    code,
    call: (h) => imported(h, [DOCUMENT, '', text, line({ id: 'z' })].join('\n')),
    check: async ({ body }, h) => {
      expect(body.error.message).toContain(message);
      expect(body.error.param).toBe('line 3');
      expect(h.deps.collections.store.get('notes').documents).toBe(1);
      expect(await found(h, 'search_notes', 'oak')).toBe('Ada likes oak.');
    },
  })),
  {
    operation: 'importDocuments',
    what: 'a name that no tool could have',
    status: 400,
    code: 'invalid_request',
    call: (h) => imported(h, DOCUMENT, 'a b'),
  },
  {
    operation: 'importDocuments',
    what: 'a line over the limit',
    status: 413,
    code: 'payload_too_large',
    call: (h) => imported(h, ' '.repeat(LIMITS.importLineCharsMax + 1)),
  },
  {
    operation: 'deleteDocument',
    what: 'found no more',
    status: 200,
    call: async (h) => h.call('deleteDocument', await storedDocument(h)),
    check: async ({ body }, h) => {
      expect(body).toEqual({ id: 'a', object: 'document', deleted: true });
      expect(await found(h, 'search_notes', 'oak')).toBe('no results');
      expect(h.deps.collections.store.get('notes').documents).toBe(0);
    },
  },
  {
    operation: 'deleteDocument',
    what: 'an id with a slash',
    status: 200,
    call: async (h) => {
      await imported(h, line({ id: 'guide/start.md#first steps' }));
      return h.call('deleteDocument', {
        path: { name: 'notes', document_id: 'guide/start.md#first steps' },
      });
    },
  },
  {
    operation: 'deleteDocument',
    what: 'an unknown id',
    status: 404,
    code: 'document_not_found',
    call: async (h) => {
      await storedDocument(h);
      return h.call('deleteDocument', { path: { name: 'notes', document_id: 'b' } });
    },
  },
  ...(['deleteDocument', 'deleteCollection'] as const).flatMap((operation): Case[] => [
    {
      operation,
      what: 'an unknown collection',
      status: 404,
      code: 'collection_not_found',
      call: (h) => h.call(operation, { path: { name: 'none', document_id: 'a' } }),
    },
    {
      operation,
      what: 'a name that none can have',
      status: 400,
      code: 'invalid_request',
      call: (h) => h.call(operation, { path: { name: 'x'.repeat(58), document_id: 'a' } }),
    },
  ]),
  {
    operation: 'deleteCollection',
    what: 'its tool is gone, and can come again',
    status: 200,
    call: async (h) => h.call('deleteCollection', await storedDocument(h)),
    check: async ({ body }, h) => {
      expect(body).toEqual({ name: 'notes', object: 'collection', deleted: true });
      expect(h.deps.tools.has('search_notes')).toBe(false);
      await imported(h, line({ text: 'Ada likes ash.' }));
      expect(await found(h, 'search_notes', 'ash oak')).toBe('Ada likes ash.');
    },
  },
  {
    operation: 'deleteCollection',
    what: 'the default collection',
    status: 400,
    code: 'invalid_request',
    call: (h) => h.call('deleteCollection', { path: { name: 'corpus' } }),
    check: ({ body }) => expect(body.error.message).toContain('corpus: the default collection'),
  },
];
