/**
 * The rotary part of a config.json, in the two forms that transformers writes: `rope_theta` beside
 * `rope_scaling` (version 4), or both inside `rope_parameters` (version 5). Where the versions
 * differ, version 5 is followed: a stated `factor` of yarn counts, and is not replaced by the ratio
 * of the two windows.
 *
 * Scalings other than linear, llama3 and yarn, and keys that are not known, are refused by name:
 * they would change the numbers silently. What the numbers do is in rope-frequencies.ts.
 */
import { JsonFields } from '../json-fields.ts';
import { yarnAttentionFactor } from './rope-frequencies.ts';
import type { RopeScaling } from './types.ts';

export interface RopeConfig {
  ropeTheta: number;
  ropeScaling?: RopeScaling;
}

const THETA_DEFAULT = 10_000;
/** YaRN's own defaults (arXiv:2309.00071, section 3.2). */
const BETA_FAST = 32;
const BETA_SLOW = 1;

const COMMON_KEYS = ['rope_type', 'type', 'rope_theta', 'partial_rotary_factor'];
/** The keys of each supported scaling, beside the common ones. */
const SCALING_KEYS = {
  default: [],
  linear: ['factor'],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'],
  yarn: [
    'factor',
    'original_max_position_embeddings',
    'attention_factor',
    'beta_fast',
    'beta_slow',
    'mscale',
    'mscale_all_dim',
    'truncate',
  ],
} as const;
type ScalingType = keyof typeof SCALING_KEYS;

/** @throws AppError policy_invalid that names the key at fault. */
export function parseRope(config: JsonFields, contextTokens: number): RopeConfig {
  const inner = scalingFields(config);
  requireWholeRotation(config);
  if (inner === null) return { ropeTheta: config.number('rope_theta', thetaRule()) };
  requireWholeRotation(inner);
  const ropeTheta = inner.number('rope_theta', thetaRule(config.number('rope_theta', thetaRule())));
  const type = scalingType(inner);
  if (type === 'default') return { ropeTheta };
  if (type === 'yarn' && ropeTheta === 1) throw inner.invalid('yarn needs a rope_theta above 1');
  return { ropeTheta, ropeScaling: parseScaling(type, inner, config, contextTokens) };
}

/** The keys of config.json that `parseRope` reads back, in the form that both versions load. */
export function formatRope({ ropeTheta, ropeScaling }: RopeConfig): Record<string, unknown> {
  if (ropeScaling === undefined) return { rope_theta: ropeTheta };
  return { rope_theta: ropeTheta, rope_scaling: formatScaling(ropeScaling) };
}

/** The smallest theta keeps every frequency within (0, 1]. */
const thetaRule = (fallback = THETA_DEFAULT) => ({ fallback, least: 1 });

function scalingFields(config: JsonFields): JsonFields | null {
  const given = ['rope_scaling', 'rope_parameters'].flatMap((key) => {
    const value = config.value(key);
    if (value === undefined) return [];
    const fields = new JsonFields(value, `${config.where}: ${key}`);
    return fields.keys.length === 0 ? [] : [fields];
  });
  if (given.length > 1) {
    throw config.invalid(
      'both rope_scaling and rope_parameters are given; one of them is expected',
    );
  }
  return given[0] ?? null;
}

function requireWholeRotation(fields: JsonFields): void {
  const share = fields.value('partial_rotary_factor') ?? 1;
  if (share === 1) return;
  throw fields.invalid(`partial_rotary_factor ${JSON.stringify(share)} is not supported; 1 is`);
}

function scalingType(inner: JsonFields): ScalingType {
  const named = inner.value('rope_type') ?? inner.value('type') ?? 'default';
  const types = Object.keys(SCALING_KEYS) as ScalingType[];
  const type = types.find((name) => name === named);
  if (type === undefined) {
    const supported = types.join(', ');
    throw inner.invalid(
      `rope_type ${JSON.stringify(named)} is not supported; supported: ${supported}`,
    );
  }
  const known: readonly string[] = [...COMMON_KEYS, ...SCALING_KEYS[type]];
  const unknown = inner.keys.find((key) => !known.includes(key));
  if (unknown === undefined) return type;
  throw inner.invalid(`${unknown} is not supported in a scaling of type ${type}`);
}

function parseScaling(
  type: Exclude<ScalingType, 'default'>,
  inner: JsonFields,
  config: JsonFields,
  contextTokens: number,
): RopeScaling {
  const factor = inner.number('factor', { least: 1 });
  if (type === 'linear') return { type, factor };
  // A window stated outside comes first, as in transformers.
  const key = 'original_max_position_embeddings';
  const window = { integer: true, least: 1 };
  const originalContextTokens =
    config.optionalNumber(key, window) ?? inner.number(key, { fallback: contextTokens, ...window });
  if (type === 'llama3') {
    const lowFrequencyFactor = inner.number('low_freq_factor', { above: 0 });
    const highFrequencyFactor = inner.number('high_freq_factor', { above: lowFrequencyFactor });
    return { type, factor, lowFrequencyFactor, highFrequencyFactor, originalContextTokens };
  }
  return {
    type,
    factor,
    originalContextTokens,
    attentionFactor: attentionFactor(inner, factor),
    // Zero means the default, as in transformers.
    betaFast: inner.number('beta_fast', { fallback: BETA_FAST, least: 0 }) || BETA_FAST,
    betaSlow: inner.number('beta_slow', { fallback: BETA_SLOW, least: 0 }) || BETA_SLOW,
    truncate: inner.flag('truncate', true),
  };
}

function attentionFactor(inner: JsonFields, factor: number): number {
  const mscale = inner.number('mscale', { fallback: 0, least: 0 });
  const mscaleAllDim = inner.number('mscale_all_dim', { fallback: 0, least: 0 });
  const stated = inner.optionalNumber('attention_factor', { above: 0 });
  if (stated !== undefined) return stated;
  if (mscale === 0 || mscaleAllDim === 0) return yarnAttentionFactor(factor);
  return yarnAttentionFactor(factor, mscale) / yarnAttentionFactor(factor, mscaleAllDim);
}

function formatScaling(scaling: RopeScaling): Record<string, unknown> {
  const { type, factor } = scaling;
  if (type === 'linear') return { rope_type: type, factor };
  const windowed = {
    rope_type: type,
    factor,
    original_max_position_embeddings: scaling.originalContextTokens,
  };
  if (type === 'llama3') {
    return {
      ...windowed,
      low_freq_factor: scaling.lowFrequencyFactor,
      high_freq_factor: scaling.highFrequencyFactor,
    };
  }
  const { attentionFactor: stated, betaFast, betaSlow, truncate } = scaling;
  return {
    ...windowed,
    // Defaults are left out, as in published files; the mscale pair has become one number.
    ...(betaFast !== BETA_FAST && { beta_fast: betaFast }),
    ...(betaSlow !== BETA_SLOW && { beta_slow: betaSlow }),
    ...(!truncate && { truncate }),
    ...(stated !== yarnAttentionFactor(factor) && { attention_factor: stated }),
  };
}
