/**
 * A JSON schema as the rules of an automaton. Whatever the rules spell is valid; not all that is
 * valid is spelled: members come in the order of `properties` without others than the declared
 * ones, numbers have at most 15 digits, and the only white space is one space after a comma or a
 * colon, if any.
 *
 * A keyword that is not supported is refused by name, wherever it stands; none is ignored but
 * those that only describe.
 */
import { AppError } from '../errors.ts';
import type { JsonSchema } from '../records.ts';
import type { Automaton } from './automaton.ts';
import { JsonRules } from './json-rules.ts';
import { isObject, type JsonObject } from './policy-files.ts';

const DESCRIBING = new Set([
  ...['title', 'description', 'default', 'examples', 'deprecated', 'readOnly', 'writeOnly'],
  ...['$schema', '$id', '$comment', '$defs', 'definitions'],
]);

/** Schemas inside schemas, references followed; the compiler's own stack grows with it. */
const NESTING_MAX = 256;

/** Keywords that say something about values of one type. */
const OF_TYPE: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength'],
  integer: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  number: [],
  boolean: [],
  null: [],
};

/**
 * Adds the rules of a schema and returns the first state of its rule. `escaped`: ASCII characters
 * that strings hold only as escapes. Throws invalid_request that names the keyword and its place.
 */
export function schemaRule(automaton: Automaton, schema: JsonSchema, escaped: string): number {
  return new SchemaCompiler(automaton, schema, escaped).rule(schema, '#');
}

class SchemaCompiler {
  private readonly automaton: Automaton;
  private readonly root: JsonSchema;
  private readonly json: JsonRules;
  private readonly referred = new Map<string, number>();
  private nesting = 0;

  constructor(automaton: Automaton, root: JsonSchema, escaped: string) {
    this.automaton = automaton;
    this.root = root;
    this.json = new JsonRules(automaton, escaped);
  }

  /** The rule of a schema that stands at `place`, a JSON pointer. */
  rule(schema: unknown, place: string): number {
    this.nesting++;
    this.automaton.budget.takeParts(1);
    if (this.nesting > NESTING_MAX) throw refused(place, `is nested deeper than ${NESTING_MAX}`);
    const rule = this.ruleOf(schema, place);
    this.nesting--;
    return rule;
  }

  private ruleOf(schema: unknown, place: string): number {
    if (schema === true) return this.json.anyValue();
    if (schema === false) throw refused(place, 'allows no value');
    if (!isObject(schema)) throw refused(place, 'is no schema');
    const keywords = Object.keys(schema).filter((keyword) => !DESCRIBING.has(keyword));
    if (keywords.length === 0) return this.json.anyValue();
    if (schema.$ref !== undefined) {
      requireOnly(keywords, ['$ref'], place);
      return this.reference(schema.$ref, place);
    }
    if (schema.anyOf !== undefined) {
      requireOnly(keywords, ['anyOf'], place);
      return this.anyOf(schema.anyOf, `${place}/anyOf`);
    }
    if (schema.const !== undefined || schema.enum !== undefined) {
      return this.literals(schema, keywords, place);
    }
    return this.ofTypes(schema, keywords, place);
  }

  private reference(pointer: unknown, place: string): number {
    if (typeof pointer !== 'string' || !/^#(\/|$)/.test(pointer) || pointer.includes('%')) {
      throw refused(`${place}/$ref`, `${JSON.stringify(pointer)} is not a place in this schema`);
    }
    const known = this.referred.get(pointer);
    if (known !== undefined) return known;
    // Known before its schema is compiled, which may refer to itself.
    const start = this.automaton.state();
    this.referred.set(pointer, start);
    const target = pointerTarget(this.root, pointer);
    if (target === undefined) throw refused(`${place}/$ref`, `there is no ${pointer}`);
    this.automaton.empty(start, this.rule(target, pointer));
    return start;
  }

  private anyOf(options: unknown, place: string): number {
    if (!Array.isArray(options) || options.length === 0) throw refused(place, 'is no list');
    return this.either(options.map((option, i) => this.rule(option, `${place}/${i}`)));
  }

  private either(rules: readonly number[]): number {
    const start = this.automaton.state();
    for (const rule of new Set(rules)) this.automaton.empty(start, rule);
    return start;
  }

  private literals(schema: JsonObject, keywords: readonly string[], place: string): number {
    const keyword = schema.const === undefined ? 'enum' : 'const';
    requireOnly(keywords, [keyword, 'type'], place);
    const values: unknown = keyword === 'enum' ? schema.enum : [schema.const];
    if (!Array.isArray(values)) throw refused(`${place}/enum`, 'is no list');
    this.automaton.budget.takeParts(values.length);
    const types = schema.type === undefined ? null : this.typesOf(schema.type, place);
    const fitting = values.filter((value) => types === null || types.some((t) => isOf(value, t)));
    if (fitting.length === 0) throw refused(`${place}/${keyword}`, 'allows no value');
    const start = this.automaton.state();
    for (const value of fitting) {
      this.automaton.endAt(this.automaton.text(start, this.json.literal(value)));
    }
    return start;
  }

  private ofTypes(schema: JsonObject, keywords: readonly string[], place: string): number {
    const types =
      schema.type === undefined
        ? Object.keys(OF_TYPE).filter((type) => OF_TYPE[type]?.some((k) => keywords.includes(k)))
        : this.typesOf(schema.type, place);
    const known = ['type', ...types.flatMap((type) => OF_TYPE[type] ?? [])];
    requireOnly(keywords, known, place);
    return this.either(types.map((type) => this.ofType(type, schema, place)));
  }

  private typesOf(type: unknown, place: string): string[] {
    const types = new Set<unknown>(Array.isArray(type) ? type : [type]);
    this.automaton.budget.takeParts(Array.isArray(type) ? type.length : 1);
    return Array.from(types, (name) => {
      if (typeof name === 'string' && Object.hasOwn(OF_TYPE, name)) return name;
      throw refused(`${place}/type`, `${JSON.stringify(name)} is no JSON type`);
    });
  }

  private ofType(type: string, schema: JsonObject, place: string): number {
    switch (type) {
      case 'object':
        return this.object(schema, place);
      case 'array':
        return this.array(schema, place);
      case 'string': {
        const [min, max] = [count(schema, 'minLength', place), count(schema, 'maxLength', place)];
        if (max !== null && max < (min ?? 0)) throw refused(`${place}/maxLength`, 'allows nothing');
        return this.json.string(min ?? 0, max);
      }
      case 'integer':
        return this.integer(schema, place);
      case 'number':
        return this.json.number();
      case 'boolean':
        return this.json.words('true', 'false');
      default:
        return this.json.words('null');
    }
  }

  private array(schema: JsonObject, place: string): number {
    const min = count(schema, 'minItems', place) ?? 0;
    const max = count(schema, 'maxItems', place);
    if (max !== null && max < min) throw refused(`${place}/maxItems`, `is below minItems ${min}`);
    if (max === 0) return this.json.words('[]');
    return this.json.array(this.rule(schema.items ?? true, `${place}/items`), min, max);
  }

  private object(schema: JsonObject, place: string): number {
    const { properties = {}, required = [], additionalProperties: further = true } = schema;
    if (!isObject(properties)) throw refused(`${place}/properties`, 'is no object');
    if (!Array.isArray(required)) throw refused(`${place}/required`, 'is no list');
    this.automaton.budget.takeParts(required.length);
    const needed = new Set(required.map(String));
    const names = new Set([...Object.keys(properties), ...needed]);
    this.automaton.budget.takeParts(names.size);
    if (names.size === 0) {
      if (further === false) return this.json.words('{}');
      return this.json.freeObject(this.rule(further, `${place}/additionalProperties`));
    }
    const members = Array.from(names, (name) => ({
      name,
      value: Object.hasOwn(properties, name)
        ? this.rule(properties[name], `${place}/properties/${name}`)
        : this.rule(further, `${place}/additionalProperties`),
      required: needed.has(name),
    }));
    return this.json.object(members);
  }

  private integer(schema: JsonObject, place: string): number {
    const bound = (keyword: string, round: (value: number) => number, step: number) => {
      const value = schema[keyword];
      if (value === undefined) return null;
      if (typeof value !== 'number') throw refused(`${place}/${keyword}`, 'is no number');
      return round(value) === value ? value + step : round(value);
    };
    const [least, above] = [
      bound('minimum', Math.ceil, 0),
      bound('exclusiveMinimum', Math.ceil, 1),
    ];
    const [most, below] = [
      bound('maximum', Math.floor, 0),
      bound('exclusiveMaximum', Math.floor, -1),
    ];
    const low = Math.max(least ?? -Infinity, above ?? -Infinity);
    const high = Math.min(most ?? Infinity, below ?? Infinity);
    const rule = this.json.integer(low, high);
    if (rule !== null) return rule;
    throw refused(place, `no integer of at most 15 digits lies between ${low} and ${high}`);
  }
}

function isOf(value: unknown, type: string): boolean {
  if (type === 'null') return value === null;
  if (type === 'array') return Array.isArray(value);
  if (type === 'object') return isObject(value);
  if (type === 'integer') return Number.isInteger(value);
  return typeof value === type;
}

function count(schema: JsonObject, keyword: string, place: string): number | null {
  const value = schema[keyword];
  if (value === undefined) return null;
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0) return value;
  throw refused(`${place}/${keyword}`, `${JSON.stringify(value)} is no count`);
}

function pointerTarget(root: JsonSchema, pointer: string): unknown {
  const steps = pointer.split('/').slice(1);
  return steps.reduce<unknown>((at, step) => {
    const name = step.replaceAll('~1', '/').replaceAll('~0', '~');
    if (Array.isArray(at)) return at[Number(name)] as unknown;
    return isObject(at) && Object.hasOwn(at, name) ? at[name] : undefined;
  }, root);
}

function requireOnly(keywords: readonly string[], known: readonly string[], place: string): void {
  const other = keywords.find((keyword) => !known.includes(keyword));
  if (other === undefined) return;
  const beside = known.filter((keyword) => keywords.includes(keyword)).join(', ');
  throw refused(`${place}/${other}`, `is not supported${beside === '' ? '' : ` with ${beside}`}`);
}

function refused(place: string, why: string): AppError {
  return new AppError('invalid_request', `JSON schema: ${place} ${why}`);
}
