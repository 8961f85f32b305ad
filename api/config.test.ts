/** Tests of settings: defaults, flags over environment, and one clear line for every wrong one. */
import { expect, test } from 'vitest';
import { isLoopback, parseConfig } from './config.ts';

test('defaults serve on the loopback interface with the schedule off', () => {
  const config = parseConfig({ PATH: '/bin' }, []);
  expect(config).toMatchObject({ port: 8787, host: '127.0.0.1' });
  expect(config).toMatchObject({ device: 'auto', dtype: 'f32', kvBytesMax: null });
  expect(config.schedule).toEqual({ minNewScored: null, everyMinutes: null });
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
  expect(config.schedule).toEqual({ minNewScored: 20, everyMinutes: 0.5 });
});

test.each([
  [{ RAMIFY_PORT: '70000' }, [], 'RAMIFY_PORT=70000: must be a port from 0 to 65535'],
  [{ RAMIFY_PORT: '80x' }, [], 'RAMIFY_PORT=80x'],
  [{ RAMIFY_HOST: '0.0.0.0' }, [], 'RAMIFY_HOST=0.0.0.0: only a loopback address'],
  [{ RAMIFY_DEVICE: 'tpu' }, [], 'RAMIFY_DEVICE=tpu: must be one of auto'],
  [{ RAMIFY_DTYPE: 'bf16' }, [], 'RAMIFY_DTYPE=bf16: must be one of f32, f16'],
  [{ RAMIFY_KV_MEMORY: '0' }, [], 'RAMIFY_KV_MEMORY=0: must be auto, or megabytes'],
  [{ RAMIFY_PROT: '1' }, [], 'RAMIFY_PROT=1: unknown setting; known are RAMIFY_PORT'],
  [{ RAMIFY_DATA: '' }, [], 'RAMIFY_DATA='],
  [{ RAMIFY_EVERY_MINUTES: '-1' }, [], 'RAMIFY_EVERY_MINUTES=-1'],
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
