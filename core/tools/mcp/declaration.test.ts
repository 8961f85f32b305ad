/** Tests of the declarations of MCP servers: what is wrong is refused by its place. */
import { expect, test } from 'vitest';
import { LIMITS } from '../../limits.ts';
import { parseMcpServers } from './declaration.ts';

const environment = { PATH: '/bin', TOKEN: 's3cret', OTHER: 'x' };

const parse = (...list: unknown[]) => parseMcpServers(list, environment, 'tools.json');

test('a command gets what it needs and the variables it names, no more', () => {
  expect(
    parse({
      name: 'files',
      command: 'npx',
      args: ['-y', 'server'],
      env: ['TOKEN'],
      tools: ['read'],
      effects: { default: 'annotations', read: 'none' },
      timeout_ms: 5_000,
    }),
  ).toEqual([
    {
      name: 'files',
      reach: {
        command: 'npx',
        args: ['-y', 'server'],
        environment: { PATH: '/bin', TOKEN: 's3cret' },
      },
      tools: ['read'],
      defaultEffects: 'annotations',
      effects: new Map([['read', 'none']]),
      timeoutMs: 5_000,
    },
  ]);
});

test('an address, its secrets by name; effects unless it is said otherwise', () => {
  const url = 'https://mcp.example/mcp';
  const headers = { Authorization: 'Bearer ${TOKEN}', 'x-plain': 'a$b' };
  const [declaration] = parse({ name: 'web', url, headers });
  expect(declaration).toMatchObject({
    reach: { url, headers: { Authorization: 'Bearer s3cret', 'x-plain': 'a$b' } },
    tools: null,
    defaultEffects: 'writes',
    timeoutMs: LIMITS.toolTimeoutMs,
  });
});

const command = { name: 'a', command: 'x' };
const address = { name: 'a', url: 'http://127.0.0.1:1/mcp' };

test.each([
  ['must be an object', 'a'],
  ['.nmae is not known', { nmae: 'a', command: 'x' }],
  ['.name must be', { command: 'x' }],
  ['.name must be', { ...command, name: 'a_b' }],
  ['.command must be given, or else url', { name: 'a' }],
  ['.command must be given, or else url', { ...command, ...address }],
  ['.command must be a program', { name: 'a', command: '' }],
  ['.args must be', { ...command, args: 'x' }],
  ['.env must be variables that are set; NONE is not', { ...command, env: ['NONE'] }],
  ['.headers must be left out', { ...command, headers: {} }],
  ['.url must be', { name: 'a', url: 'file:///x' }],
  ['.headers must be of variables that are set', { ...address, headers: { a: '${NONE}' } }],
  ['.headers must be names with texts', { ...address, headers: { a: 1 } }],
  ['.args must be left out', { ...address, env: [] }],
  ['.tools must be', { ...command, tools: [1] }],
  ['.effects must be', { ...command, effects: { read: 'annotations' } }],
  ['.effects must be', { ...command, effects: { default: 'some' } }],
  ['.timeout_ms must be', { ...command, timeout_ms: 0.5 }],
])('%s', (message, entry) => {
  expect(() => parse(command, entry)).toThrow(
    expect.objectContaining({
      code: 'config_invalid',
      message: expect.stringMatching(/^tools\.json: mcp\[1\]/),
    }),
  );
  expect(() => parse(command, entry)).toThrow(message);
});

test('no list', () => {
  expect(() => parseMcpServers({}, environment, 'tools.json')).toThrow('mcp must be a list');
});
