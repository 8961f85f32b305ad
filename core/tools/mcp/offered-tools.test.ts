/** Tests of how the tools of an MCP server become tools of the agent. */
import type { Tool as Listed } from '@modelcontextprotocol/sdk/types.js';
import { expect, test } from 'vitest';
import { LIMITS } from '../../limits.ts';
import type { McpServerDeclaration } from './declaration.ts';
import { agentToolName, offeredTools } from './offered-tools.ts';
import { resultText } from './result-text.ts';

const declaration: McpServerDeclaration = {
  name: 'files',
  reach: { url: 'http://127.0.0.1:1/mcp', headers: {} },
  tools: null,
  defaultEffects: 'writes',
  effects: new Map(),
  timeoutMs: 1_000,
};

const listed = (name: string, fields: Partial<Listed> = {}): Listed => ({
  name,
  inputSchema: { type: 'object' },
  ...fields,
});

const offered = (tools: Listed[], changes: Partial<McpServerDeclaration> = {}) =>
  offeredTools({ ...declaration, ...changes }, tools, async () => '');

test('names are valid, at most 64 long, and no two become one', () => {
  expect(agentToolName('files', 'read_file')).toBe('files__read_file');
  const odd = ['read file', 'read.file', 'read/file', 'x'.repeat(100), `${'x'.repeat(100)}y`, ''];
  const names = odd.map((name) => agentToolName('files', name));
  expect(new Set(names).size).toBe(odd.length);
  for (const name of names) expect(name).toMatch(/^[a-zA-Z0-9_-]{1,64}$/);
  expect(agentToolName('files', 'read file')).toBe(names[0]);
});

test('only the tools that are allowed, and what is missing is told', () => {
  const { tools, refused } = offered([listed('read'), listed('write')], {
    tools: ['read', 'gone'],
  });
  expect(tools.map(({ name }) => name)).toEqual(['files__read']);
  expect(refused).toEqual(['gone is not on the server']);
});

test('a tool listed twice, one of too large a schema and one that must be a task are left out', () => {
  const inputSchema = { type: 'object', title: 'x'.repeat(LIMITS.toolSchemaCharsMax) } as const;
  const execution = { taskSupport: 'required' } as const;
  const { tools, refused } = offered([
    ...[listed('read'), listed('read', { description: 'the second' })],
    ...[listed('large', { inputSchema }), listed('task', { execution })],
  ]);
  expect(tools.map(({ name, description }) => [name, description])).toEqual([['files__read', '']]);
  expect(refused.map((text) => text.split(' ')[0])).toEqual(['read', 'large', 'task']);
});

test('effects are writes unless the declaration says or believes otherwise', () => {
  const tools = [
    listed('a', { annotations: { readOnlyHint: true } }),
    listed('b', { annotations: { readOnlyHint: false } }),
    listed('c'),
  ];
  const effects = (changes: Partial<McpServerDeclaration>) =>
    offered(tools, changes).tools.map((tool) => tool.effects);
  expect(effects({})).toEqual(['writes', 'writes', 'writes']);
  expect(effects({ defaultEffects: 'annotations' })).toEqual(['none', 'writes', 'writes']);
  expect(effects({ defaultEffects: 'none' })).toEqual(['none', 'none', 'none']);
  expect(
    effects({
      defaultEffects: 'annotations',
      effects: new Map([
        ['a', 'writes'],
        ['c', 'none'],
      ]),
    }),
  ).toEqual(['writes', 'writes', 'none']);
});

test('the primary argument is the first required string, else the first', () => {
  const string = { type: 'string' };
  const properties = { n: { type: 'number' }, a: string, b: string };
  const primary = (required: string[]) =>
    offered([listed('x', { inputSchema: { type: 'object', properties, required } })]).tools[0]
      ?.primaryArgument;
  expect(primary(['n', 'b'])).toBe('b');
  expect(primary(['n'])).toBe('a');
});

test('results as text: texts joined, the rest named, structured content where there is no text', () => {
  const text = { type: 'text', text: 'hello' } as const;
  const image = { type: 'image', data: 'AAAA', mimeType: 'image/png' } as const;
  const link = { type: 'resource_link', uri: 'file:///a', name: 'a' } as const;
  const resource = { type: 'resource', resource: { uri: 'x:1', text: 'inside' } } as const;
  const blob = { type: 'resource', resource: { uri: 'x:2', blob: 'AAAAAAAA' } } as const;
  expect(resultText({ content: [text, image, link, resource, blob] })).toBe(
    'hello\n[image of type image/png, 3 bytes, not shown]\n[resource file:///a: a]\ninside\n' +
      '[resource x:2, 6 bytes, not shown]',
  );
  const structuredContent = { degrees: 7 };
  expect(resultText({ content: [], structuredContent })).toBe('{"degrees":7}');
  expect(resultText({ content: [image], structuredContent })).toContain('{"degrees":7}');
  expect(resultText({ content: [text], structuredContent })).toBe('hello');
  expect(resultText({ content: [] })).toBe('no content');
});
