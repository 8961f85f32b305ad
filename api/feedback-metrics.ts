/**
 * The metrics that feedback may name: `reward`, `comment` and `demonstration` always, and those
 * that the server's settings declare with a type and, for numbers, a range. A range declared for
 * `reward` holds for it too. Anything else is refused, so that a misspelt name is not kept in vain.
 */
import { AppError } from '../core/errors.ts';

export type Metric =
  { type: 'number'; min?: number; max?: number } | { type: 'boolean' } | { type: 'text' };

export type FeedbackMetrics = ReadonlyMap<string, Metric>;

const BUILT_IN: readonly (readonly [string, Metric])[] = [
  ['reward', { type: 'number' }],
  ['comment', { type: 'text' }],
  ['demonstration', { type: 'text' }],
];

const NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;
/** More are a sign of names made up by a program. */
const METRICS_MAX = 100;

/** @throws AppError invalid_request that says what is wrong with the declaration. */
export function parseMetrics(text: string): FeedbackMetrics {
  let declared: unknown;
  try {
    declared = JSON.parse(text);
  } catch (cause) {
    throw wrong('it is not valid JSON', cause);
  }
  if (!isObject(declared)) throw wrong('it is not a JSON object');
  const metrics = new Map<string, Metric>(BUILT_IN);
  for (const [name, given] of Object.entries(declared)) {
    if (!NAME.test(name)) throw wrong(`'${name}' is not a name as stars or answer.helpful`);
    const metric = metricOf(name, given);
    const before = metrics.get(name);
    if (before !== undefined && before.type !== metric.type) {
      throw wrong(`${name} is always a ${before.type}`);
    }
    metrics.set(name, metric);
  }
  if (metrics.size > METRICS_MAX) throw wrong(`it declares more than ${METRICS_MAX} metrics`);
  return metrics;
}

/** @throws AppError invalid_request that names the metric or its value. */
export function checkMetric(
  metrics: FeedbackMetrics,
  name: string,
  value: number | boolean | string,
): void {
  const metric = metrics.get(name);
  if (metric === undefined) {
    const known = [...metrics.keys()].join(', ');
    throw new AppError('invalid_request', `metric_name: ${name} is none of ${known}`, {
      param: 'metric_name',
    });
  }
  const kind = typeof value === 'string' ? 'text' : typeof value;
  if (kind !== metric.type) {
    throw refused(`${name} takes a ${metric.type}, not ${JSON.stringify(value)}`);
  }
  if (metric.type !== 'number') return;
  const { min = -Infinity, max = Infinity } = metric;
  if (Number(value) >= min && Number(value) <= max) return;
  throw refused(`${name} is from ${min} to ${max}, not ${String(value)}`);
}

function metricOf(name: string, given: unknown): Metric {
  const fields: Record<string, unknown> = isObject(given) ? given : {};
  const { type, min, max, ...others } = fields;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw wrong(`${name}: unknown field '${unknown}'`);
  if (type !== 'number' && type !== 'boolean' && type !== 'text') {
    throw wrong(`${name}: type is number, boolean or text`);
  }
  if (type !== 'number') {
    if (min === undefined && max === undefined) return { type };
    throw wrong(`${name}: only a number has min and max`);
  }
  for (const bound of [min, max]) {
    if (bound !== undefined && typeof bound !== 'number') {
      throw wrong(`${name}: min and max are numbers`);
    }
  }
  if (Number(min ?? -Infinity) > Number(max ?? Infinity)) throw wrong(`${name}: min is above max`);
  return {
    type,
    ...(typeof min === 'number' && { min }),
    ...(typeof max === 'number' && { max }),
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function refused(why: string): AppError {
  return new AppError('invalid_request', `value: ${why}`, { param: 'value' });
}

function wrong(why: string, cause?: unknown): AppError {
  return new AppError('invalid_request', why, { cause });
}
