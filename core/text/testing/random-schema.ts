/**
 * Random JSON schemas of what constraints support. Strings, arrays and recursion are bounded, so
 * that even a policy that knows nothing comes to an end.
 */
import type { Prng } from '../../prng.ts';

const NAMES = ['name', 'n', 'a b', 'größe', '"quoted"', 'x<y>', 'type', '{}'];

export type ObjectSchema = Record<string, unknown>;

export function randomSchema(prng: Prng, depth = 3): ObjectSchema {
  const kinds = depth > 0 ? [object, object, array, anyOf, union, reference] : [];
  return prng.pick([...kinds, string, integer, literals, () => ({ type: 'boolean' })])(prng, depth);
}

/** An object at the root, as functions and most clients want it. */
export function randomObjectSchema(prng: Prng, depth = 3): ObjectSchema {
  return object(prng, depth);
}

function object(prng: Prng, depth: number): ObjectSchema {
  const names = prng.shuffle(NAMES).slice(0, prng.below(4));
  return {
    type: 'object',
    properties: Object.fromEntries(names.map((name) => [name, randomSchema(prng, depth - 1)])),
    required: names.filter(() => prng.below(2) === 0),
    ...(prng.below(3) > 0 || names.length === 0 ? { additionalProperties: false } : {}),
  };
}

function array(prng: Prng, depth: number): ObjectSchema {
  const minItems = prng.below(3);
  const maxItems = minItems + prng.below(3);
  return { type: 'array', items: randomSchema(prng, depth - 1), minItems, maxItems };
}

function anyOf(prng: Prng, depth: number): ObjectSchema {
  const options = Array.from({ length: 1 + prng.below(3) }, () => randomSchema(prng, depth - 1));
  return { anyOf: options, description: 'one of them' };
}

function union(prng: Prng): ObjectSchema {
  const others = prng.shuffle(['null', 'boolean', 'number']).slice(1);
  return { type: prng.shuffle(['string', ...others]), maxLength: 3 };
}

function reference(prng: Prng, depth: number): ObjectSchema {
  const tree = prng.below(2) === 0;
  const name = `node${prng.below(1_000_000)}`;
  const left = tree ? { anyOf: [{ type: 'null' }, { $ref: `#/$defs/${name}` }] } : integer(prng);
  // Definitions belong at the root; `withDefinitions` moves them there.
  const schema = { type: 'object', properties: { left, v: string(prng) }, required: ['left'] };
  return { $ref: `#/$defs/${name}`, $defs: { [name]: schema }, title: `depth ${depth}` };
}

function string(prng: Prng): ObjectSchema {
  const minLength = prng.below(4);
  return { type: 'string', minLength, maxLength: minLength + prng.below(5) };
}

function integer(prng: Prng): ObjectSchema {
  const low = prng.below(2_000) - 1_000;
  const kinds: ObjectSchema[] = [
    {},
    { minimum: low },
    { maximum: low },
    { minimum: low, maximum: low + prng.below(1_500) },
    { exclusiveMinimum: low, exclusiveMaximum: low + 2 + prng.below(40) },
  ];
  return { type: 'integer', ...prng.pick(kinds) };
}

function literals(prng: Prng): ObjectSchema {
  const values = ['red', 'gr"n', '<b>', 3, -1.5e-7, null, true, { a: [1, '}'] }, ['x']];
  return prng.below(3) === 0
    ? { const: prng.pick(values) }
    : { enum: prng.shuffle(values).slice(0, 1 + prng.below(4)) };
}

/** The same schema with the definitions of all its parts at its root. */
export function withDefinitions(schema: ObjectSchema): ObjectSchema {
  const definitions: ObjectSchema = {};
  const clean = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(clean);
    if (typeof value !== 'object' || value === null) return value;
    const { $defs, ...rest } = value as ObjectSchema;
    for (const [name, inner] of Object.entries($defs ?? {})) definitions[name] = clean(inner);
    return Object.fromEntries(Object.entries(rest).map(([key, inner]) => [key, clean(inner)]));
  };
  return { ...(clean(schema) as ObjectSchema), $defs: definitions };
}
