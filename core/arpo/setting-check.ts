/**
 * Checks one override against its description, and refuses by name: the error's `param` is
 * `settings.NAME`. Knows no setting.
 */
import { AppError } from '../errors.ts';
import type { RangeSpec, SettingSpec } from './setting-specs.ts';

/** What a run was asked to set, by name; unchecked. */
export type Overrides = Readonly<Record<string, unknown>>;

/** Throws invalid_request when `value` does not fit the description. */
export function checkValue(name: string, value: unknown, spec: SettingSpec): void {
  if (spec.kind === 'choice') {
    if (!(spec.values as readonly unknown[]).includes(value)) {
      refuse(name, `${name} must be ${spec.values.join(' or ')}, not ${show(value)}`);
    }
    return;
  }
  if (spec.kind === 'names') {
    const list = Array.isArray(value) && value.length > 0 ? (value as unknown[]) : null;
    const known = list?.every((item) => (spec.names as readonly unknown[]).includes(item));
    if (known !== true && !(spec.words as readonly unknown[]).includes(value)) {
      const names = `a list of ${spec.names.join(', ')}`;
      refuse(name, `${name} must be ${spec.words.join(' or ')} or ${names}, not ${show(value)}`);
    }
    return;
  }
  if (value === null && spec.nullable) return;
  if (spec.kind !== 'pair') return checkNumber(name, value, spec);
  if (!Array.isArray(value) || value.length !== 2) {
    refuse(name, `${name} must be two numbers, not ${show(value)}`);
  }
  for (const item of value as unknown[]) checkNumber(name, item, spec);
}

function checkNumber(name: string, value: unknown, spec: RangeSpec): void {
  const whole = spec.kind === 'integer';
  if (typeof value !== 'number' || !Number.isFinite(value) || (whole && !Number.isInteger(value))) {
    refuse(name, `${name} must be ${whole ? 'an integer' : 'a number'}, not ${show(value)}`);
  }
  const low = spec.above === undefined ? value >= spec.min : value > spec.above;
  const high = spec.below === undefined ? value <= spec.max : value < spec.below;
  if (!low || !high) {
    const from = spec.above === undefined ? `at least ${spec.min}` : `above ${spec.above}`;
    const to = spec.below === undefined ? `at most ${spec.max}` : `below ${spec.below}`;
    refuse(name, `${name} must be ${from} and ${to}, not ${value}`);
  }
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 100);
}

export function refuse(name: string, message: string): never {
  throw new AppError('invalid_request', message, { param: `settings.${name}` });
}

/** Refuses every override among `names`, because it would do nothing. */
export function refuseGiven(overrides: Overrides, names: readonly string[], why: string): void {
  for (const name of names) if (name in overrides) refuse(name, `${name} has no effect ${why}`);
}

/** The overrides among `names`. */
export function given<T extends string>(overrides: Overrides, names: readonly T[]) {
  return Object.fromEntries(
    names.filter((name) => name in overrides).map((name) => [name, overrides[name]]),
  ) as Partial<Record<T, unknown>>;
}
