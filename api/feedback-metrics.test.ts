/** Metrics of feedback: what settings may declare, and what values fit. */
import { expect, test } from 'vitest';
import { checkMetric, parseMetrics } from './feedback-metrics.ts';

const metrics = parseMetrics(
  JSON.stringify({
    stars: { type: 'number', min: 1, max: 5 },
    'answer.helpful': { type: 'boolean' },
    remark: { type: 'text' },
    reward: { type: 'number', min: -1, max: 1 },
  }),
);

test.each([
  ['stars', 1],
  ['stars', 5],
  ['answer.helpful', false],
  ['remark', ''],
  ['comment', 'fine'],
  ['demonstration', 'Paris'],
  ['reward', -1],
])('%s takes %j', (name, value) => {
  expect(() => checkMetric(metrics, name, value)).not.toThrow();
});

test.each([
  ['stars', 0.99, 'value', 'stars is from 1 to 5, not 0.99'],
  ['stars', '5', 'value', 'stars takes a number, not "5"'],
  ['answer.helpful', 1, 'value', 'answer.helpful takes a boolean, not 1'],
  ['remark', true, 'value', 'remark takes a text, not true'],
  ['reward', 1.01, 'value', 'reward is from -1 to 1, not 1.01'],
  ['reward', NaN, 'value', 'reward is from -1 to 1, not NaN'],
  ['mood', 1, 'metric_name', 'mood is none of reward, comment, demonstration, stars'],
])('%s does not take %j', (name, value, param, message) => {
  expect(() => checkMetric(metrics, name, value)).toThrow(
    expect.objectContaining({
      code: 'invalid_request',
      param,
      message: expect.stringContaining(message) as string,
    }) as Error,
  );
});

test.each([
  ['[]', 'not a JSON object'],
  ['{', 'not valid JSON'],
  ['{"1x":{"type":"text"}}', "'1x' is not a name"],
  ['{"x":{"type":"json"}}', 'x: type is number, boolean or text'],
  ['{"x":5}', 'x: type is'],
  ['{"x":{"type":"text","min":1}}', 'x: only a number has min and max'],
  ['{"x":{"type":"number","min":"1"}}', 'x: min and max are numbers'],
  ['{"x":{"type":"number","min":2,"max":1}}', 'x: min is above max'],
  ['{"x":{"type":"number","step":1}}', "x: unknown field 'step'"],
  ['{"comment":{"type":"number"}}', 'comment is always a text'],
])('refuses to declare %s', (text, message) => {
  expect(() => parseMetrics(text)).toThrow(message);
});
