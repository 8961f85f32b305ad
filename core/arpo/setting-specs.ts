/**
 * How a setting is described, as data: type, range, choices. The settings themselves stand by part:
 * rollout-settings.ts, loss-settings.ts, trainer-settings.ts; settings.ts reads all of them.
 */
interface Range {
  min: number;
  max: number;
  /** Exclusive bounds, in the place of min or max. */
  above?: number;
  below?: number;
}

export type RangeSpec = { kind: 'integer' | 'number' | 'pair'; nullable?: boolean } & Range;

export type SettingSpec =
  | RangeSpec
  | { kind: 'choice'; values: readonly (string | boolean)[] }
  /** One of `words`, or a list of some of `names`. */
  | { kind: 'names'; names: readonly string[]; words: readonly string[] };

export const integer = (min: number, max: number): SettingSpec => ({ kind: 'integer', min, max });

export const number = (min: number, max: number, more: Partial<RangeSpec> = {}): SettingSpec => ({
  kind: 'number',
  min,
  max,
  ...more,
});

/** Two numbers, each in the range. */
export const pair = (min: number, max: number, more: Partial<RangeSpec> = {}): SettingSpec => ({
  kind: 'pair',
  min,
  max,
  ...more,
});

export const choice = (...values: readonly (string | boolean)[]): SettingSpec => ({
  kind: 'choice',
  values,
});

export const onOff: SettingSpec = choice(true, false);
