/**
 * The contract against those that were released (openapi/), and every rule of the comparison on a
 * small contract: what breaks older clients is told with its place, what does not passes.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { contractPath } from '../../api/contract/contract.ts';
import { packageRoot } from '../../core/paths.ts';
import { incompatibilities } from './compatibility.ts';

const RELEASED = join(packageRoot, 'openapi');

// Changed in place by each test.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Document = any;

const read = (path: string): Document => parse(readFileSync(path, 'utf8'));

const BASE = `
openapi: 3.1.0
info: { title: small, version: 1.0.0 }
paths:
  /things/{id}:
    put:
      operationId: putThing
      parameters:
        - { name: id, in: path, required: true, schema: { type: string, maxLength: 10 } }
        - { name: sort, in: query, schema: { enum: [up, down] } }
      requestBody:
        content:
          application/json:
            schema: { $ref: '#/components/schemas/Wish' }
      responses:
        '200':
          description: It.
          headers: { x-thing: { schema: { type: string } } }
          content:
            application/json: { schema: { $ref: '#/components/schemas/Thing' } }
            text/event-stream:
              schema: { type: string }
              x-sse-data: { $ref: '#/components/schemas/Event' }
        '400': { $ref: '#/components/responses/Bad' }
components:
  responses:
    Bad:
      description: Bad.
      content:
        application/json: { schema: { $ref: '#/components/schemas/Error' } }
  schemas:
    Error:
      type: object
      properties: { code: { enum: [bad, worse], x-extensible: true } }
    Wish:
      type: object
      required: [name]
      additionalProperties: false
      properties:
        name: { type: string, minLength: 1 }
        size: { type: number, maximum: 9, default: 1 }
        color: { enum: [red, blue] }
        parts: { type: array, items: { $ref: '#/components/schemas/Wish' } }
        either:
          oneOf: [{ type: string }, { type: integer }]
    Thing:
      allOf:
        - { $ref: '#/components/schemas/Fields' }
      unevaluatedProperties: false
    Fields:
      type: object
      required: [id, state]
      properties:
        id: { type: string, pattern: '^t_' }
        state: { enum: [on, off] }
        note: { type: string }
        inner: { $ref: '#/components/schemas/Thing' }
    Event:
      x-extensible: true
      oneOf:
        - type: object
          required: [type]
          properties: { type: { const: made }, thing: { $ref: '#/components/schemas/Thing' } }
        - type: object
          required: [type]
          properties: { type: { const: gone } }
`;

type Change = (parts: {
  document: Document;
  put: Document;
  ok: Document;
  schemas: Document;
}) => void;

function faultsOf(change: Change): string[] {
  const document = parse(BASE);
  const put = document.paths['/things/{id}'].put;
  change({ document, put, ok: put.responses['200'], schemas: document.components.schemas });
  return incompatibilities(parse(BASE), document);
}

const JSON_TYPE = 'application/json';

describe('what breaks older clients', () => {
  test.each<[string, RegExp, Change]>([
    ['a path', /^PUT .*: is gone/, ({ document }) => (document.paths = {})],
    [
      'an operation',
      /^PUT .*: is gone/,
      ({ document }) => delete document.paths['/things/{id}'].put,
    ],
    ['its name', /operationId/, ({ put }) => (put.operationId = 'setThing')],
    ['a parameter', /query sort: is not taken/, ({ put }) => put.parameters.pop()],
    [
      'a required parameter',
      /header x-new: is required/,
      ({ put }) => put.parameters.push({ name: 'x-new', in: 'header', required: true, schema: {} }),
    ],
    [
      'a parameter now required',
      /sort: is required/,
      ({ put }) => (put.parameters[1].required = true),
    ],
    [
      'a value of a parameter',
      /"down" is refused/,
      ({ put }) => put.parameters[1].schema.enum.pop(),
    ],
    ['a bound of a parameter', /maxLength/, ({ put }) => (put.parameters[0].schema.maxLength = 5)],
    ['a required body', /body: is required/, ({ put }) => (put.requestBody.required = true)],
    [
      'a media type of the body',
      /json is not taken/,
      ({ put }) => (put.requestBody.content = { 'text/plain': { schema: {} } }),
    ],
    ['a required field', /size: is required/, ({ schemas }) => schemas.Wish.required.push('size')],
    [
      'a new required field',
      /new: is required/,
      ({ schemas }) => {
        schemas.Wish.properties.new = {};
        schemas.Wish.required.push('new');
      },
    ],
    [
      'a field of the body',
      /color: is not taken/,
      ({ schemas }) => delete schemas.Wish.properties.color,
    ],
    [
      'a type of the body',
      /name: type string/,
      ({ schemas }) => (schemas.Wish.properties.name.type = 'number'),
    ],
    [
      'a narrower number',
      /size: type number/,
      ({ schemas }) => (schemas.Wish.properties.size.type = 'integer'),
    ],
    [
      'a value of the body',
      /color: "red" is refused/,
      ({ schemas }) => schemas.Wish.properties.color.enum.shift(),
    ],
    [
      'values where any were',
      /name: may be any/,
      ({ schemas }) => (schemas.Wish.properties.name.enum = ['a']),
    ],
    [
      'a lower maximum',
      /size: maximum 9/,
      ({ schemas }) => (schemas.Wish.properties.size.maximum = 8),
    ],
    [
      'a new maximum',
      /maxLength none/,
      ({ schemas }) => (schemas.Wish.properties.name.maxLength = 3),
    ],
    [
      'a higher minimum',
      /minLength/,
      ({ schemas }) => (schemas.Wish.properties.name.minLength = 2),
    ],
    ['a pattern', /pattern/, ({ schemas }) => (schemas.Wish.properties.name.pattern = 'a')],
    ['another default', /default/, ({ schemas }) => (schemas.Wish.properties.size.default = 2)],
    ['a kind of the body', /either/, ({ schemas }) => schemas.Wish.properties.either.oneOf.pop()],
    [
      'items of the body',
      /parts\.\[\]/,
      ({ schemas }) => (schemas.Wish.properties.parts.items = { type: 'string' }),
    ],
    ['a status', /400: is answered no more/, ({ put }) => delete put.responses['400']],
    ['a new success', /202: is a new success/, ({ put }) => (put.responses['202'] = {})],
    ['a header', /header x-thing is gone/, ({ ok }) => delete ok.headers],
    [
      'a media type',
      /is not text\/event-stream/,
      ({ ok }) => delete ok.content['text/event-stream'],
    ],
    [
      'a field of an answer',
      /note: is gone/,
      ({ schemas }) => delete schemas.Fields.properties.note,
    ],
    ['a field that may lack', /state: may lack/, ({ schemas }) => schemas.Fields.required.pop()],
    [
      'a type of an answer',
      /note: type null/,
      ({ schemas }) => (schemas.Fields.properties.note.type = ['string', 'null']),
    ],
    [
      'a value of an answer',
      /state: "hot" is a new value/,
      ({ schemas }) => schemas.Fields.properties.state.enum.push('hot'),
    ],
    [
      'any value of an answer',
      /state/,
      ({ schemas }) => (schemas.Fields.properties.state = { type: 'string' }),
    ],
    [
      'a pattern of an answer',
      /id: pattern/,
      ({ schemas }) => delete schemas.Fields.properties.id.pattern,
    ],
    [
      'a field of an event',
      /thing: is gone/,
      ({ schemas }) => delete schemas.Event.oneOf[0].properties.thing,
    ],
    [
      'a kind of a body that is answered with less',
      /PUT .* 200/,
      ({ ok }) => (ok.content[JSON_TYPE].schema = { type: 'array' }),
    ],
  ])('%s', (_what, fault, change) => {
    const faults = faultsOf(change);
    expect(faults.length, faults.join('\n')).toBeGreaterThan(0);
    expect(faults.join('\n')).toMatch(fault);
  });
});

describe('what does not', () => {
  test.each<[string, Change]>([
    ['nothing', () => undefined],
    ['a path', ({ document, put }) => (document.paths['/more'] = { get: put })],
    [
      'an optional parameter',
      ({ put }) => put.parameters.push({ name: 'q', in: 'query', schema: {} }),
    ],
    ['an optional field of the body', ({ schemas }) => (schemas.Wish.properties.new = {})],
    ['a field that need not be sent', ({ schemas }) => (schemas.Wish.required = [])],
    ['a wider bound', ({ schemas }) => (schemas.Wish.properties.size.maximum = 10)],
    ['a bound less', ({ schemas }) => delete schemas.Wish.properties.name.minLength],
    ['a type more', ({ schemas }) => (schemas.Wish.properties.name.type = ['string', 'null'])],
    ['a value more to send', ({ schemas }) => schemas.Wish.properties.color.enum.push('green')],
    ['any value to send', ({ schemas }) => (schemas.Wish.properties.color = { type: 'string' })],
    [
      'a kind more to send',
      ({ schemas }) => schemas.Wish.properties.either.oneOf.push({ type: 'null' }),
    ],
    ['a field of an answer', ({ schemas }) => (schemas.Fields.properties.more = {})],
    ['a field that always comes', ({ schemas }) => schemas.Fields.required.push('note')],
    ['a value less in answers', ({ schemas }) => schemas.Fields.properties.state.enum.pop()],
    [
      'an integer where a number was',
      ({ schemas }) => (schemas.Wish.properties.either.oneOf[1].type = 'number'),
    ],
    ['an error status', ({ put }) => (put.responses['429'] = {})],
    ['an extensible value', ({ schemas }) => schemas.Error.properties.code.enum.push('worst')],
    [
      'a kind of an extensible union',
      ({ schemas }) =>
        schemas.Event.oneOf.push({ type: 'object', properties: { type: { const: 'new' }, x: {} } }),
    ],
    ['words', ({ put }) => (put.summary = 'Another one.')],
  ])('%s', (_what, change) => {
    expect(faultsOf(change)).toEqual([]);
  });
});

const releases = readdirSync(RELEASED).filter((name) => name.endsWith('.yaml'));

test('the contract of this version is kept', () => {
  expect(releases).toContain(`${read(contractPath).info.version}.yaml`);
});

test.each(releases)('clients of %s go on working', (name) => {
  expect(incompatibilities(read(join(RELEASED, name)), read(contractPath))).toEqual([]);
});

test('a real field that goes is seen', () => {
  const newer = read(contractPath);
  delete newer.components.schemas.Policy.properties.sha256;
  newer.components.schemas.Policy.required.splice(
    newer.components.schemas.Policy.required.indexOf('sha256'),
    1,
  );
  const faults = incompatibilities(read(contractPath), newer);
  expect(faults).toContain('GET /v1/admin/policies/{version} 200: sha256: may lack');
});
