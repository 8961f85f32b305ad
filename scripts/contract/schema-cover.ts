/**
 * Whether one JSON Schema of a contract covers another: whether all that fits the narrow one fits
 * the wide one. It does not try to decide that in general. Kinds of a union are tried one by one,
 * and patterns, formats and what it has no rule for must be equal; so it may refuse a change that
 * is harmless, and is meant never to pass one that is not.
 */
export type Json = Record<string, unknown>;

/** `request`: the newer contract is the wide side. `answer`: the older, and clients are lenient. */
export type Direction = 'request' | 'answer';

export interface Side {
  schema: Json;
  /** Where its references lead. */
  document: Json;
}

/** Keyword -> whether the wide side must be at most (-1) or at least (1) the narrow one. */
const BOUNDS = {
  minimum: -1,
  exclusiveMinimum: -1,
  minLength: -1,
  minItems: -1,
  minProperties: -1,
  maximum: 1,
  exclusiveMaximum: 1,
  maxLength: 1,
  maxItems: 1,
  maxProperties: 1,
} as const;

const EQUAL = [
  'pattern',
  'format',
  'multipleOf',
  'uniqueItems',
  'not',
  'if',
  'then',
  'else',
  'contains',
  'prefixItems',
  'patternProperties',
  'dependentRequired',
  'dependentSchemas',
  'contentMediaType',
  'contentEncoding',
];

const TYPES = ['null', 'boolean', 'object', 'array', 'number', 'string'];

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** No schema, and `true`, let everything pass; `false` lets nothing. */
export function schemaOf(value: unknown): Json {
  if (isObject(value)) return value;
  return value === false ? { not: {} } : {};
}

/** The schema or other object behind a reference, with what `allOf` adds put together. */
export function follow(document: Json, value: Json): Json {
  const reference = value['$ref'];
  if (typeof reference !== 'string') return flatten(document, value);
  const path = reference.slice(2).split('/');
  const found = path.reduce<unknown>((inner, key) => (inner as Json)[key], document);
  const beside = { ...value };
  delete beside['$ref'];
  return { ...follow(document, found as Json), ...beside };
}

function flatten(document: Json, value: Json): Json {
  if (!Array.isArray(value['allOf'])) return value;
  const { allOf, unevaluatedProperties, ...own } = value;
  const parts = [...(allOf as Json[]).map((part) => follow(document, part)), own];
  const merged = Object.assign({}, ...parts) as Json;
  merged['properties'] = Object.assign({}, ...parts.map((part) => part['properties'])) as Json;
  merged['required'] = parts.flatMap((part) => (part['required'] ?? []) as string[]);
  if (unevaluatedProperties !== undefined) merged['additionalProperties'] = unevaluatedProperties;
  return merged;
}

/** Why what fits the narrow side might not fit the wide one; empty = it always does. */
export function covers(wide: Side, narrow: Side, direction: Direction): string[] {
  return new Cover(direction).compare(wide, narrow);
}

class Cover {
  private readonly direction: Direction;
  /** By pair of references; of pairs under comparison nothing, since schemas contain themselves. */
  private readonly known = new Map<string, string[]>();

  constructor(direction: Direction) {
    this.direction = direction;
  }

  compare(wide: Side, narrow: Side): string[] {
    const references = [wide, narrow].map(({ schema }) => schema['$ref']);
    if (!references.every((one) => typeof one === 'string')) return this.judge(wide, narrow);
    const key = references.join(' ');
    const known = this.known.get(key);
    if (known !== undefined) return known;
    this.known.set(key, []);
    const faults = this.judge(wide, narrow);
    this.known.set(key, faults);
    return faults;
  }

  private judge(wideSide: Side, narrowSide: Side): string[] {
    const wide = { ...wideSide, schema: follow(wideSide.document, wideSide.schema) };
    const narrow = { ...narrowSide, schema: follow(narrowSide.document, narrowSide.schema) };
    return [
      ...typeFaults(wide.schema, narrow.schema),
      ...this.valueFaults(wide.schema, narrow.schema),
      ...keywordFaults(wide.schema, narrow.schema, this.direction),
      ...this.fieldFaults(wide, narrow),
      ...this.innerFaults(wide, narrow),
      ...this.unionFaults(wide, narrow),
    ];
  }

  private valueFaults(wide: Json, narrow: Json): string[] {
    const [known, given] = [valuesOf(wide), valuesOf(narrow)];
    if (known === undefined) return [];
    // Of a union the kinds are compared.
    if (given === undefined) return kindsOf(narrow) === undefined ? ['may be any value'] : [];
    if (this.direction === 'answer' && wide['x-extensible'] === true) return [];
    return given
      .filter((value) => !known.includes(value))
      .map((value) => `${value} is ${this.direction === 'request' ? 'refused' : 'a new value'}`);
  }

  private fieldFaults(wide: Side, narrow: Side): string[] {
    const faults: string[] = [];
    const asks = this.direction === 'request';
    const [wides, narrows] = [fieldsOf(wide.schema), fieldsOf(narrow.schema)];
    const [must, given] = [requiredOf(wide.schema), requiredOf(narrow.schema)];
    for (const name of must.filter((one) => !given.includes(one))) {
      // A union's kinds say what they require.
      if (kindsOf(narrow.schema) !== undefined && narrows[name] === undefined) continue;
      faults.push(`${name}: ${asks ? 'is required now' : 'may lack'}`);
    }
    for (const [name, schema] of Object.entries(narrows)) {
      const known = wides[name];
      if (known !== undefined) faults.push(...this.inner(name, wide, known, narrow, schema));
      else if (asks && isClosed(wide.schema)) faults.push(`${name}: is not taken any more`);
    }
    for (const name of asks ? [] : Object.keys(wides)) {
      if (narrows[name] === undefined && !must.includes(name)) faults.push(`${name}: is gone`);
    }
    if (asks && isClosed(wide.schema) && !isClosed(narrow.schema) && takesObjects(narrow.schema)) {
      faults.push('unknown fields are not taken any more');
    }
    return faults;
  }

  private innerFaults(wide: Side, narrow: Side): string[] {
    const { items, propertyNames, additionalProperties: others } = wide.schema;
    const faults: string[] = [];
    const has = (type: string): boolean => typesOf(narrow.schema).includes(type);
    if (isObject(items) && has('array')) {
      faults.push(...this.inner('[]', wide, items, narrow, narrow.schema['items']));
    }
    if (!takesObjects(narrow.schema)) return faults;
    if (isObject(propertyNames)) {
      const names = narrow.schema['propertyNames'];
      faults.push(...this.inner('names', wide, propertyNames, narrow, names));
    }
    if (isObject(others) && !isClosed(narrow.schema)) {
      const other = narrow.schema['additionalProperties'];
      faults.push(...this.inner('*', wide, others, narrow, other));
    }
    return faults;
  }

  private unionFaults(wide: Side, narrow: Side): string[] {
    const wides = kindsOf(wide.schema);
    if (wides === undefined) return [];
    const alone = { ...narrow.schema };
    delete alone['oneOf'];
    delete alone['anyOf'];
    const kinds = (kindsOf(narrow.schema) ?? [alone]).filter(
      (kind) => !this.isNewKind(wide, wides, narrow, kind),
    );
    return kinds.flatMap((kind) => {
      const tries = wides.map((known) =>
        this.compare({ ...wide, schema: known }, { ...narrow, schema: kind }),
      );
      const nearest = tries.reduce((best, faults) => (faults.length < best.length ? faults : best));
      return nearest;
    });
  }

  /** Whether clients were told that kinds may come, and this one has a tag that none had. */
  private isNewKind(wide: Side, wides: Json[], narrow: Side, kind: Json): boolean {
    if (this.direction === 'request' || wide.schema['x-extensible'] !== true) return false;
    const tags = tagsOf(follow(narrow.document, kind));
    const known = wides.flatMap((one) => tagsOf(follow(wide.document, one)));
    return tags.length > 0 && !tags.some((tag) => known.includes(tag));
  }

  private inner(name: string, wide: Side, a: unknown, narrow: Side, b: unknown): string[] {
    const sides = [
      { ...wide, schema: schemaOf(a) },
      { ...narrow, schema: schemaOf(b) },
    ] as const;
    return this.compare(...sides).map((fault) =>
      isPath(fault) ? `${name}.${fault}` : `${name}: ${fault}`,
    );
  }
}

const isPath = (fault: string): boolean => /^[\w$*[\].-]+: /.test(fault);

/** Null types, and `integer` as a part of `number`. */
function typesOf(schema: Json): string[] {
  const { type } = schema;
  if (typeof type === 'string') return [type];
  if (Array.isArray(type)) return type as string[];
  const values = rawValues(schema);
  return values === undefined ? TYPES : [...new Set(values.map(typeOf))];
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return Number.isInteger(value) ? 'integer' : typeof value;
}

function typeFaults(wide: Json, narrow: Json): string[] {
  const known = typesOf(wide);
  const fits = (type: string): boolean =>
    known.includes(type) || (type === 'integer' && known.includes('number'));
  const strange = typesOf(narrow).filter((type) => !fits(type));
  if (strange.length === 0) return [];
  // A union without a type of its own has those of its kinds, which are compared with all of wide.
  if (narrow['type'] === undefined && kindsOf(narrow) !== undefined) return [];
  return [`type ${strange.join(', ')} where ${known.join(', ')} was`];
}

function keywordFaults(wide: Json, narrow: Json, direction: Direction): string[] {
  const faults: string[] = [];
  for (const [name, sign] of Object.entries(BOUNDS)) {
    const [a, b] = [wide[name], narrow[name]] as [number | undefined, number | undefined];
    if (a === undefined || valuesOf(narrow) !== undefined) continue;
    const kindsJudge = b === undefined && kindsOf(narrow) !== undefined;
    if (!kindsJudge && (b === undefined || sign * (a - b) < 0)) {
      faults.push(`${name} ${b ?? 'none'} where ${a} is`);
    }
  }
  for (const name of EQUAL) {
    if (wide[name] === undefined || valuesOf(narrow) !== undefined) continue;
    if (JSON.stringify(wide[name]) !== JSON.stringify(narrow[name])) faults.push(`${name} changed`);
  }
  const [a, b] = [JSON.stringify(wide['default']), JSON.stringify(narrow['default'])];
  if (direction === 'request' && b !== undefined && a !== b) faults.push(`default changed to ${a}`);
  return faults;
}

function rawValues(schema: Json): unknown[] | undefined {
  if (Object.hasOwn(schema, 'const')) return [schema['const']];
  return schema['enum'] as unknown[] | undefined;
}

/** As JSON text, so that they can be compared. */
const valuesOf = (schema: Json): string[] | undefined =>
  rawValues(schema)?.map((value) => JSON.stringify(value));

const kindsOf = (schema: Json): Json[] | undefined =>
  (schema['oneOf'] ?? schema['anyOf']) as Json[] | undefined;

/** Values of the fields that tell the kinds of a union apart. */
const tagsOf = (kind: Json): string[] =>
  Object.entries(fieldsOf(kind)).flatMap(([name, schema]) =>
    (valuesOf(schemaOf(schema)) ?? []).map((value) => `${name} ${value}`),
  );

const fieldsOf = (schema: Json): Json => (schema['properties'] ?? {}) as Json;

const requiredOf = (schema: Json): string[] => (schema['required'] ?? []) as string[];

const isClosed = (schema: Json): boolean => schema['additionalProperties'] === false;

const takesObjects = (schema: Json): boolean =>
  schema['type'] === 'object' ||
  (Array.isArray(schema['type']) && schema['type'].includes('object')) ||
  schema['properties'] !== undefined;
