/**
 * Reads the fields of a JSON object that somebody else wrote (config.json and its like), strictly:
 * a value of the wrong type or range is refused by its key, never repaired. An absent field and a
 * null one are the same, as in Hugging Face's files, unless a caller asks.
 */
import { AppError } from './errors.ts';

export interface NumberRule {
  /** Taken where the field is absent; without one the field is required. */
  fallback?: number;
  integer?: boolean;
  /** The smallest value allowed. */
  least?: number;
  /** Every value allowed is larger than this. */
  above?: number;
  /** The largest value allowed. */
  largest?: number;
}

export class JsonFields {
  /** What errors call the place: a file, or a file and the object in it. */
  readonly where: string;
  private readonly source: Readonly<Record<string, unknown>>;

  /** @throws AppError policy_invalid when `json` is no object. */
  constructor(json: unknown, where: string) {
    this.where = where;
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw this.invalid('is not a JSON object');
    }
    this.source = json as Record<string, unknown>;
  }

  get keys(): string[] {
    return Object.keys(this.source);
  }

  /** The value as it is; undefined where it is absent or null. */
  value(key: string): unknown {
    return this.source[key] ?? undefined;
  }

  /** Whether the key is there, be it with null. */
  isWritten(key: string): boolean {
    return Object.hasOwn(this.source, key);
  }

  /** @throws AppError policy_invalid: absent without fallback, no number, or out of range. */
  number(key: string, rule: NumberRule = {}): number {
    const value = this.value(key) ?? rule.fallback;
    const { integer = false, least = -Infinity, above = -Infinity, largest = Infinity } = rule;
    const fits =
      typeof value === 'number' &&
      Number.isFinite(value) &&
      (!integer || Number.isInteger(value)) &&
      value >= least &&
      value > above;
    if (!fits) throw this.invalid(`${key} must be ${phrase(rule)}, not ${JSON.stringify(value)}`);
    if (value > largest) throw this.invalid(`${key} ${value} is larger than ${largest}`);
    return value;
  }

  /** As `number`, but undefined where the field is absent. */
  optionalNumber(key: string, rule: NumberRule = {}): number | undefined {
    return this.value(key) === undefined ? undefined : this.number(key, rule);
  }

  /** @throws AppError policy_invalid when the value is neither true nor false. */
  flag(key: string, fallback = false): boolean {
    const value = this.value(key) ?? fallback;
    if (typeof value === 'boolean') return value;
    throw this.invalid(`${key} must be true or false, not ${JSON.stringify(value)}`);
  }

  invalid(what: string): AppError {
    return new AppError('policy_invalid', `${this.where}: ${what}`);
  }
}

function phrase({ integer = false, least, above }: NumberRule): string {
  const noun = integer ? 'integer' : 'number';
  if (above === 0 || (integer && least === 1)) return `a positive ${noun}`;
  const article = integer ? 'an' : 'a';
  if (above !== undefined) return `${article} ${noun} above ${above}`;
  return least === undefined ? `${article} ${noun}` : `${article} ${noun} of at least ${least}`;
}
