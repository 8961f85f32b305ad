/**
 * Runs chat templates as Python's Jinja does. @huggingface/jinja parses them and does nearly
 * everything right; what it does otherwise is put right here, each found by a rendering of
 * transformers that came out differently: comparison by Python's rules ('' is not false), strip
 * with characters to strip, Python's idea of white space, lengths in characters and without the
 * guards of template-guard.ts, absent keys of any type, and dates in English by a clock passed in.
 */
import * as jinja from '@huggingface/jinja';
import type { Template } from '@huggingface/jinja';
import type { Clock } from '../clock.ts';

/** Functions that the library defines and does not let redefine: templates call ours instead. */
const OUR_NAMES = { raise_exception: 'ramify_refuse', strftime_now: 'ramify_strftime_now' };

const MONTHS =
  'January February March April May June July August September October November December'.split(
    ' ',
  );
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

/** Python's str.isspace: with U+001C to U+001F and U+0085, without U+FEFF. */
const SPACE =
  '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';

export interface TemplateFunctions {
  /** raise_exception of the template; must throw. */
  refuse: (message: unknown) => never;
  clock: Clock;
  /** Not counted in lengths. */
  guard: string;
}

/** A parsed template. Throws Error where it does not parse. */
export function parseTemplate(source: string): Template {
  let renamed = source;
  for (const [name, ours] of Object.entries(OUR_NAMES)) {
    renamed = renamed.replace(new RegExp(`\\b${name}\\b`, 'g'), ours);
  }
  return new jinja.Template(renamed);
}

export function runTemplate(
  { parsed }: Template,
  variables: Readonly<Record<string, unknown>>,
  { refuse, clock, guard }: TemplateFunctions,
): string {
  const environment = new Library.Environment();
  const values = {
    ...{ true: true, false: false, none: null, True: true, False: false, None: null },
    range,
    [OUR_NAMES.raise_exception]: refuse,
    [OUR_NAMES.strftime_now]: (format: unknown) => strftime(new Date(clock.now()), String(format)),
    ...variables,
  };
  for (const [name, value] of Object.entries(values)) environment.set(name, value);
  return new TemplateInterpreter(environment, guard).run(parsed).value as string;
}

/** What the library's values have in common; their classes are not exported. */
interface RuntimeValue {
  type: string;
  value: unknown;
}

interface Node {
  type: string;
  value?: unknown;
}

interface BinaryNode {
  left: Node;
  right: Node;
  operator: { value: string };
}

interface MemberNode {
  object: Node;
  property: Node;
  computed: boolean;
}

interface Environment {
  /** Declares a variable; returns the library's value of it. */
  set(name: string, value: unknown): RuntimeValue;
}

/** The methods that we call or replace; private in the library's declarations only. */
interface OpenInterpreter {
  run(program: unknown): RuntimeValue;
  evaluate(node: unknown, environment: Environment): RuntimeValue;
  evaluateBinaryExpression(node: BinaryNode, environment: Environment): RuntimeValue;
  evaluateMemberExpression(node: MemberNode, environment: Environment): RuntimeValue;
  applyFilter(operand: RuntimeValue, filter: Node, environment: Environment): RuntimeValue;
}

/** The package's declarations import without file extensions, which ESM cannot resolve. */
const Library = jinja as unknown as {
  Environment: new () => Environment;
  Interpreter: new (environment: Environment) => OpenInterpreter;
};

class TemplateInterpreter extends Library.Interpreter {
  private readonly guard: string;

  constructor(environment: Environment, guard: string) {
    super(environment);
    this.guard = guard;
  }

  override evaluateBinaryExpression(node: BinaryNode, environment: Environment): RuntimeValue {
    const operator = node.operator.value;
    if (operator === '==' || operator === '!=') {
      const left = this.evaluate(node.left, environment);
      const same = isEqual(left, this.evaluate(node.right, environment));
      return toValue(same === (operator === '=='));
    }
    return super.evaluateBinaryExpression(node, environment);
  }

  override evaluateMemberExpression(node: MemberNode, environment: Environment): RuntimeValue {
    const { object, property, computed } = node;
    if (!computed && STRIPS.has(property.value as string)) {
      const text = this.evaluate(object, environment);
      if (text.type === 'StringValue') return stripMethod(text, property.value as string);
    }
    if (computed && property.type !== 'SliceExpression') {
      const container = this.evaluate(object, environment);
      const key = this.evaluate(property, environment);
      if (container.type === 'ObjectValue' && key.type !== 'StringValue') return toValue(undefined);
    }
    return super.evaluateMemberExpression(node, environment);
  }

  override applyFilter(operand: RuntimeValue, filter: Node, environment: Environment) {
    if (operand.type === 'StringValue' && filter.type === 'Identifier') {
      const text = operand.value as string;
      if (filter.value === 'trim') return toValue(strip(text, 'strip', null));
      if (filter.value === 'length') return toValue([...text.replaceAll(this.guard, '')].length);
    }
    return super.applyFilter(operand, filter, environment);
  }
}

/** The library's value of a plain one. */
function toValue(value: unknown): RuntimeValue {
  return new Library.Environment().set('value', value);
}

const NUMBERS = ['IntegerValue', 'FloatValue', 'BooleanValue'];

/** Python's ==. Numbers and truth values compare as numbers; other kinds never equal another. */
function isEqual(a: RuntimeValue, b: RuntimeValue): boolean {
  if (NUMBERS.includes(a.type) && NUMBERS.includes(b.type))
    return Number(a.value) === Number(b.value);
  if (Array.isArray(a.value) && Array.isArray(b.value)) {
    const [left, right] = [a.value as RuntimeValue[], b.value as RuntimeValue[]];
    return left.length === right.length && left.every((item, i) => isEqual(item, right[i]!));
  }
  if (a.type !== b.type) return false;
  if (a.value instanceof Map && b.value instanceof Map) {
    const [left, right] = [a.value, b.value] as Map<string, RuntimeValue>[];
    return (
      left!.size === right!.size &&
      [...left!].every(([key, item]) => right!.has(key) && isEqual(item, right!.get(key)!))
    );
  }
  return a.value === b.value;
}

const STRIPS = new Set(['strip', 'lstrip', 'rstrip']);

/** Called by the library with its values, so it cannot be a plain function. */
function stripMethod(text: RuntimeValue, method: string): RuntimeValue {
  const callable = toValue(() => null);
  callable.value = ([characters]: RuntimeValue[]) => {
    const given = characters?.type === 'StringValue' ? (characters.value as string) : null;
    return toValue(strip(text.value as string, method, given));
  };
  return callable;
}

/** Python's strip methods; `characters` null means white space. */
function strip(text: string, method: string, characters: string | null): string {
  if (characters === '') return text;
  const kind = characters === null ? SPACE : `[${characters.replace(/[\\\]^-]/g, '\\$&')}]`;
  const left = method === 'rstrip' ? text : text.replace(new RegExp(`^${kind}+`, 'u'), '');
  if (method === 'lstrip') return left;
  // From the end by hand: a pattern that ends with $ tries every start, which long texts make slow.
  const one = new RegExp(`^${kind}$`, 'u');
  const kept = [...left];
  let end = kept.length;
  while (end > 0 && one.test(kept[end - 1]!)) end--;
  return kept.slice(0, end).join('');
}

function range(start: number, stop?: number, step = 1): number[] {
  if (step === 0) throw new Error('range: the step is 0');
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const count = Math.max(0, Math.ceil((to - from) / step));
  return Array.from({ length: count }, (_, i) => from + i * step);
}

/** Python's strftime with English names, whatever the system's language; unknown codes stay. */
function strftime(date: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const codes: Record<string, string> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    B: MONTHS[date.getMonth()]!,
    b: MONTHS[date.getMonth()]!.slice(0, 3),
    A: DAYS[date.getDay()]!,
    a: DAYS[date.getDay()]!.slice(0, 3),
    H: two(date.getHours()),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    '%': '%',
  };
  return format.replace(/%([a-zA-Z%])/g, (code, letter: string) => codes[letter] ?? code);
}
