/**
 * What of a newer contract would break a client written for an older one. Two questions, asked of
 * every schema: does the server still take all that the client may send, and does the client still
 * understand all that it may get? Both are one comparison: whether the wider schema covers the
 * narrower one. Of requests the newer contract must be the wider, of answers the older, with one
 * allowance: clients pass over fields that they do not know, and over values and kinds that they do
 * not know where the older contract says `x-extensible`.
 *
 * Not compared: what is said in words, examples, and which keys may call what.
 */
import { covers, follow, isObject, schemaOf } from './schema-cover.ts';
import type { Direction, Json } from './schema-cover.ts';

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** Lines that name the place and what is wrong; empty = older clients go on working. */
export function incompatibilities(older: Json, newer: Json): string[] {
  const comparison = new Comparison(older, newer);
  for (const [path, item] of entries(older['paths'])) {
    for (const method of METHODS) {
      const operation = (item as Json)[method] as Json | undefined;
      if (operation === undefined) continue;
      const place = `${method.toUpperCase()} ${path}`;
      const now = (at(newer, 'paths', path) as Json | undefined)?.[method] as Json | undefined;
      if (now === undefined) comparison.found(place, 'is gone');
      else comparison.operation(place, operation, now);
    }
  }
  return comparison.faults;
}

const entries = (value: unknown): [string, unknown][] =>
  isObject(value) ? Object.entries(value) : [];

/** What is at this path of keys; undefined where there is nothing. */
function at(value: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>((inner, key) => (isObject(inner) ? inner[key] : undefined), value);
}

class Comparison {
  readonly faults: string[] = [];
  private readonly older: Json;
  private readonly newer: Json;

  constructor(older: Json, newer: Json) {
    this.older = older;
    this.newer = newer;
  }

  found(place: string, what: string): void {
    const fault = `${place}: ${what}`;
    if (!this.faults.includes(fault)) this.faults.push(fault);
  }

  operation(place: string, older: Json, newer: Json): void {
    if (older['operationId'] !== newer['operationId']) this.found(place, 'operationId changed');
    this.parameters(place, older, newer);
    this.body(place, older, newer);
    const answers = entries(newer['responses']);
    for (const [status, answer] of entries(older['responses'])) {
      const now = answers.find(([name]) => name === status)?.[1];
      if (now === undefined) this.found(`${place} ${status}`, 'is answered no more');
      else this.answer(`${place} ${status}`, answer as Json, now as Json);
    }
    for (const [status] of answers) {
      const known = Object.hasOwn(older['responses'] ?? {}, status);
      if (!known && Number(status) < 400) this.found(`${place} ${status}`, 'is a new success');
    }
  }

  private parameters(place: string, older: Json, newer: Json): void {
    const list = (document: Json, operation: Json): Json[] =>
      ((operation['parameters'] ?? []) as Json[]).map((one) => follow(document, one));
    const key = (one: Json): string => `${String(one['in'])} ${String(one['name']).toLowerCase()}`;
    const before = list(this.older, older);
    const after = list(this.newer, newer);
    for (const one of before) {
      const where = `${place} ${key(one)}`;
      const now = after.find((other) => key(other) === key(one));
      if (now === undefined) this.found(where, 'is not taken any more');
      else this.schemas('request', where, one['schema'], now['schema']);
    }
    for (const one of after.filter((other) => other['required'] === true)) {
      const was = before.find((other) => key(other) === key(one));
      if (was?.['required'] !== true) this.found(`${place} ${key(one)}`, 'is required now');
    }
  }

  private body(place: string, older: Json, newer: Json): void {
    const before = older['requestBody'] as Json | undefined;
    const after = newer['requestBody'] as Json | undefined;
    if (after?.['required'] === true && before?.['required'] !== true) {
      this.found(`${place} body`, 'is required now');
    }
    for (const [type, media] of entries(before?.['content'])) {
      const now = at(after ?? {}, 'content', type) as Json | undefined;
      if (now === undefined) {
        this.found(`${place} body`, `${type} is not taken any more`);
        continue;
      }
      for (const name of ['schema', 'x-line']) {
        this.schemas('request', `${place} body`, (media as Json)[name], now[name]);
      }
    }
  }

  private answer(place: string, older: Json, newer: Json): void {
    const before = follow(this.older, older);
    const after = follow(this.newer, newer);
    for (const [name] of entries(before['headers'])) {
      if (at(after, 'headers', name) === undefined) this.found(place, `header ${name} is gone`);
    }
    for (const [type, media] of entries(before['content'])) {
      const now = at(after, 'content', type) as Json | undefined;
      if (now === undefined) {
        this.found(place, `is not ${type} any more`);
        continue;
      }
      for (const name of ['schema', 'x-sse-data', 'x-line']) {
        this.schemas('answer', place, (media as Json)[name], now[name]);
      }
    }
  }

  private schemas(direction: Direction, place: string, older: unknown, newer: unknown): void {
    const before = { schema: schemaOf(older), document: this.older };
    const after = { schema: schemaOf(newer), document: this.newer };
    const faults =
      direction === 'request' ? covers(after, before, direction) : covers(before, after, direction);
    for (const fault of faults) this.found(place, fault);
  }
}
