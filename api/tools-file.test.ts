/** Tests of the tools file: read by its setting, refused in one line that names file and place. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseConfig } from './config.ts';
import { toolsForTraining } from './declared-tools.ts';

let folder: string;
let file: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-tools-'));
  file = join(folder, 'tools.json');
});
afterAll(() => rmSync(folder, { recursive: true }));

function configOf(text: string) {
  writeFileSync(file, text);
  return parseConfig({ RAMIFY_TOOLS: file, KEY: 's3cret' }, []);
}

test('off unless a file is named', () => {
  expect(parseConfig({}, [])).toMatchObject({ toolsFile: null, tools: { mcp: [], http: [] } });
  expect(configOf('{}')).toMatchObject({ toolsFile: file, tools: { mcp: [], http: [] } });
});

test('secrets come from the environment', () => {
  const server = { name: 'a', url: 'http://127.0.0.1:1/mcp', headers: { 'x-key': '${KEY}' } };
  const { tools } = configOf(JSON.stringify({ mcp: [server] }));
  expect(tools.mcp[0]?.reach).toMatchObject({ headers: { 'x-key': 's3cret' } });
});

test('training connects no server all of whose tools have effects', () => {
  const server = (name: string, effects: object) => ({ name, command: 'x', effects });
  const mcp = [
    ...[server('plain', {}), server('some', { read: 'none' }), server('other', { a: 'writes' })],
    ...[server('believed', { default: 'annotations' }), server('free', { default: 'none' })],
  ];
  const { tools } = configOf(JSON.stringify({ mcp }));
  const names = toolsForTraining(tools).mcp.map(({ name }) => name);
  expect(names).toEqual(['some', 'believed', 'free']);
});

test.each([
  ['{', 'is not valid JSON'],
  ['[]', 'must be an object'],
  ['{"tools": []}', 'tools is not known; known are mcp, http'],
  ['{"mcp": {}}', 'mcp must be a list'],
  ['{"http": [{}]}', 'http[0].name must be'],
])('%s is refused', (text, message) => {
  expect(() => configOf(text)).toThrow(
    expect.objectContaining({ code: 'config_invalid', message: expect.stringContaining(file) }),
  );
  expect(() => configOf(text)).toThrow(message);
});

test('YAML, by the name of the file', () => {
  const path = join(folder, 'tools.yaml');
  const text = [
    'http:',
    '  - name: weather',
    '    description: The weather of a city.',
    '    url: https://api.example/weather/{city}',
    '    headers: { Authorization: "Bearer ${KEY}" }',
    '    parameters: { type: object, properties: { city: { type: string } }, required: [city] }',
  ].join('\n');
  const read = (content: string) => {
    writeFileSync(path, content);
    return parseConfig({ RAMIFY_TOOLS: path, KEY: 's3cret' }, []).tools.http;
  };
  expect(read(text)).toMatchObject([
    {
      name: 'weather',
      method: 'GET',
      effects: 'writes',
      headers: { authorization: 'Bearer s3cret' },
    },
  ]);
  expect(() => read('http: [')).toThrow(
    expect.objectContaining({
      code: 'config_invalid',
      message: expect.stringMatching(/tools\.yaml: is not valid YAML: [^\n]+$/),
    }),
  );
});

test('a file that is not there is refused', () => {
  expect(() => parseConfig({ RAMIFY_TOOLS: '/nowhere/tools.json' }, [])).toThrow(
    'RAMIFY_TOOLS: /nowhere/tools.json: is missing',
  );
});
