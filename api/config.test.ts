/** Tests of settings: defaults, flags over environment, and one clear line for every wrong one. */
import { expect, test } from 'vitest';
import { isLoopback, parseConfig } from './config.ts';

test('defaults serve on the loopback interface with the schedule off', () => {
  const config = parseConfig({ PATH: '/bin' }, []);
  expect(config).toMatchObject({ port: 8787, host: '127.0.0.1' });
  expect(config).toMatchObject({ device: 'auto', dtype: 'f32', kvBytesMax: null });
  expect(config.schedule).toEqual({ minNewScored: null, everyMinutes: null, run: {} });
  expect(config.tasks).toBe('shipped');
  expect(config.policyFolder).toMatch(/policies\/embedded$/);
  expect(config.engineThreads).toBeGreaterThan(0);
});

test('a flag wins over the environment, in both of its forms', () => {
  const environment = {
    RAMIFY_PORT: '1',
    RAMIFY_EVERY_MINUTES: '0.5',
    RAMIFY_KV_MEMORY: '512',
  };
  const config = parseConfig(environment, ['--port', '9000', '--min-new-scored=20']);
  expect(config.port).toBe(9000);
  expect(config.kvBytesMax).toBe(512 * 1024 * 1024);
  expect(config.schedule).toEqual({ minNewScored: 20, everyMinutes: 0.5, run: {} });
});

test('what a scheduled run does can be said', () => {
  const run = { algorithm: 'grpo', steps: 7, settings: { groupSize: 4 } };
  const { schedule } = parseConfig({ RAMIFY_SCHEDULED_RUN: JSON.stringify(run) }, []);
  expect(schedule.run).toEqual(run);
});

test('by default nothing is a canary, live traffic may take a version back, few files are kept', () => {
  const { release, policiesKept } = parseConfig({}, []);
  expect(release).toEqual({ canary: null, rollbackTolerance: 0.02 });
  expect(policiesKept).toBe(5);
});

test('the log is kept whole unless an age or a size is set', () => {
  expect(parseConfig({}, []).keep).toEqual({ days: null, bytes: null });
  const set = { RAMIFY_KEEP_DAYS: '30', RAMIFY_KEEP_GB: '1.5' };
  expect(parseConfig(set, []).keep).toEqual({ days: 30, bytes: 1.5e9 });
  expect(parseConfig(set, ['--keep-gb', 'off', '--keep-days=0.5']).keep).toEqual({
    days: 0.5,
    bytes: null,
  });
});

test('a share turns the canary on', () => {
  const share = { RAMIFY_CANARY_SHARE: '0.1', RAMIFY_ROLLBACK_TOLERANCE: '0' };
  expect(parseConfig(share, []).release).toEqual({
    canary: { share: 0.1, conversations: 50, minutes: 1440 },
    rollbackTolerance: 0,
  });
  const flags = ['--canary-conversations', '7', '--canary-minutes', 'off'];
  expect(parseConfig(share, flags).release.canary).toEqual({
    share: 0.1,
    conversations: 7,
    minutes: null,
  });
  expect(
    parseConfig({ RAMIFY_ROLLBACK_TOLERANCE: 'off' }, []).release.rollbackTolerance,
  ).toBeNull();
});

test.each([
  [{ RAMIFY_CANARY_SHARE: '1' }, [], 'RAMIFY_CANARY_SHARE=1: must be off, or a share between 0'],
  [{ RAMIFY_CANARY_SHARE: '0' }, [], 'RAMIFY_CANARY_SHARE=0: must be off, or a share'],
  [{ RAMIFY_CANARY_MINUTES: '5' }, [], 'RAMIFY_CANARY_MINUTES does nothing without RAMIFY_CANARY'],
  [
    { RAMIFY_CANARY_SHARE: '0.1', RAMIFY_ROLLBACK_TOLERANCE: 'off' },
    [],
    'RAMIFY_ROLLBACK_TOLERANCE=off: a canary is useless',
  ],
  [{ RAMIFY_ROLLBACK_TOLERANCE: '-1' }, [], 'RAMIFY_ROLLBACK_TOLERANCE=-1: must be off, or a'],
  [{ RAMIFY_POLICIES_KEPT: 'all' }, [], 'RAMIFY_POLICIES_KEPT=all: must be an integer'],
  [{ RAMIFY_KEEP_DAYS: '0' }, [], 'RAMIFY_KEEP_DAYS=0: must be off, or a number of days above 0'],
  [{ RAMIFY_KEEP_GB: '-1' }, [], 'RAMIFY_KEEP_GB=-1: must be off, or a number of gigabytes'],
  [{ RAMIFY_KEEP_GB: '5GB' }, [], 'RAMIFY_KEEP_GB=5GB: must be off'],
  [{ RAMIFY_PORT: '70000' }, [], 'RAMIFY_PORT=70000: must be a port from 0 to 65535'],
  [{ RAMIFY_PORT: '80x' }, [], 'RAMIFY_PORT=80x'],
  [{ RAMIFY_HOST: 'a b' }, [], 'RAMIFY_HOST=a b: must be an IP address or host name'],
  [{ RAMIFY_HOST: '' }, [], 'RAMIFY_HOST=: must be an IP address or host name'],
  [{ RAMIFY_DEVICE: 'tpu' }, [], 'RAMIFY_DEVICE=tpu: must be one of auto'],
  [{ RAMIFY_DTYPE: 'bf16' }, [], 'RAMIFY_DTYPE=bf16: must be one of f32, f16'],
  [{ RAMIFY_KV_MEMORY: '0' }, [], 'RAMIFY_KV_MEMORY=0: must be auto, or megabytes'],
  [{ RAMIFY_PROT: '1' }, [], 'RAMIFY_PROT=1: unknown setting; known are RAMIFY_PORT'],
  [{ RAMIFY_DATA: '' }, [], 'RAMIFY_DATA='],
  [{ RAMIFY_EVERY_MINUTES: '-1' }, [], 'RAMIFY_EVERY_MINUTES=-1'],
  [{ RAMIFY_SCHEDULED_RUN: '{' }, [], 'RAMIFY_SCHEDULED_RUN={: must be a JSON object'],
  [{ RAMIFY_SCHEDULED_RUN: '{"steps":0}' }, [], 'must be a JSON object with algorithm'],
  [{ RAMIFY_SCHEDULED_RUN: '{"stepps":5}' }, [], 'must be a JSON object with algorithm'],
  [{ RAMIFY_SCHEDULED_RUN: '{"settings":{"groupSise":4}}' }, [], "unknown setting 'groupSise'"],
  [{ RAMIFY_TASKS: 'mine' }, [], 'RAMIFY_TASKS=mine: must be shipped or none'],
  [{}, ['--port'], '--port needs a value'],
  [{}, ['--prot', '1'], '--prot: unknown setting'],
  [{}, ['serve'], 'serve: unknown setting'],
])('%j %j is refused', (environment, flags, message) => {
  expect(() => parseConfig(environment, flags)).toThrow(
    expect.objectContaining({ code: 'config_invalid', message: expect.stringContaining(message) }),
  );
});

test.each([
  ['localhost', true],
  ['LOCALHOST', true],
  ['127.0.0.1', true],
  ['127.255.3.4', true],
  ['[::1]', true],
  ['127.0.0.1.evil.example', false],
  ['127.0.0.300', false],
  ['localhost.evil.example', false],
  ['10.0.0.1', false],
  ['', false],
])('%s is loopback: %s', (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});
