/**
 * What JSON.parse gives, for every text that does not nest too deep; brackets in strings are text.
 */
import { describe, expect, it } from 'vitest';
import { parseBoundedJson } from './bounded-json.ts';
import { LIMITS } from './limits.ts';

const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`;

describe('parseBoundedJson', () => {
  it.each(['{"a":[1,{"b":null}]}', '"[[["', '{"\\"[":"\\\\"}', '[]', '3'])('parses %s', (text) => {
    expect(parseBoundedJson(text)).toEqual(JSON.parse(text));
  });

  it('takes the deepest nesting allowed, any number of brackets in strings, and no more', () => {
    expect(() => parseBoundedJson(nested(LIMITS.jsonDepthMax))).not.toThrow();
    expect(() => parseBoundedJson(nested(LIMITS.jsonDepthMax + 1))).toThrow('nest deeper than');
    expect(() => parseBoundedJson(nested(1_000_000))).toThrow('nest deeper than');
    expect(parseBoundedJson(`["${'['.repeat(1_000)}"]`)).toHaveLength(1);
    expect(() => parseBoundedJson('{"a":')).toThrow(SyntaxError);
  });
});
