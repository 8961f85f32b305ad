/** Tests of the bounds on what one request may demand, over all of its tools and its answer. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { LIMITS } from '../core/limits.ts';
import { loadText } from '../core/text/load-text.ts';
import { writeQwenFiles } from '../core/text/testing/qwen-files.ts';
import type { Protocol } from '../core/text/types.ts';
import { requireWritable } from './answer-form.ts';

let directory: string;
let protocol: Protocol;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'ramify-form-'));
  writeQwenFiles(directory);
  ({ protocol } = loadText(directory));
});

afterAll(() => rmSync(directory, { recursive: true }));

const tool = (name: string, characters: number) => ({
  name,
  description: '',
  parameters: {
    type: 'object',
    properties: { text: { type: 'string', maxLength: characters } },
    required: ['text'],
  },
});

test('tools share the bound on states, and the one that goes over it is named', () => {
  const characters = Math.floor(LIMITS.constraintStatesMax / 3);
  const [one, two, three] = [
    tool('one', characters),
    tool('two', characters),
    tool('three', characters),
  ];
  requireWritable(protocol, { calls: [one, two], answer: null });
  expect(() => requireWritable(protocol, { calls: [one, two, three], answer: null })).toThrow(
    expect.objectContaining({
      code: 'invalid_request',
      param: 'tools',
      message: `tools: three: the output form needs more than ${LIMITS.constraintStatesMax} states; make it smaller`,
    }),
  );
});

test('the answer shares the bound on parts', () => {
  const schema = { anyOf: new Array<boolean>(LIMITS.constraintPartsMax / 2).fill(true) };
  const call = { ...tool('one', 1), parameters: { type: 'object', properties: { a: schema } } };
  requireWritable(protocol, { calls: [call], answer: null });
  requireWritable(protocol, { calls: [], answer: schema });
  expect(() => requireWritable(protocol, { calls: [call], answer: schema })).toThrow(
    expect.objectContaining({
      code: 'invalid_request',
      param: 'response_format',
      message: expect.stringContaining('response_format: the output form has more than'),
    }),
  );
});
