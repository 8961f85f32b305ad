/** The command line as a process, doctor included: real devices, real measurements. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ramify } from '../../test/support/command-line.ts';
import { writeRandomPolicy } from '../testing/random-policy.ts';
import type { DoctorReport } from './doctor.ts';

test.each([
  [
    'serve',
    'ramify: unknown command serve; known are train, eval, replay, export, import, collection, key, doctor',
  ],
  ['constructor', 'ramify: unknown command constructor'],
])('%s is refused in one line', async (word, message) => {
  const { code, out, err } = await ramify(word);
  expect({ code, out }).toEqual({ code: 2, out: '' });
  expect(err).toMatch(/^[^\n]+\n$/);
  expect(err).toContain(message);
});

test('without a command it says which there are', async () => {
  const { code, out } = await ramify();
  expect(code).toBe(0);
  expect(out).toMatch(/^npx ramify COMMAND .*\n {2}train {6}/);
});

test('doctor refuses a wrong flag like the server does', async () => {
  const { code, err } = await ramify('doctor', '--jsno');
  expect(code).toBe(2);
  expect(err).toContain('--jsno: unknown setting');
});

test('doctor --json measures the cpu and names the provider of every graph', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-doctor-'));
  try {
    writeRandomPolicy(folder);
    const { code, out } = await ramify('doctor', '--json', '--policy', folder);
    expect(code).toBe(0);
    const report = JSON.parse(out) as DoctorReport;
    expect(report.devices.map(({ device }) => device)).toEqual(['cuda', 'webgpu', 'cpu']);
    expect(report.versions.onnxruntime).toMatch(/^\d+\.\d+\.\d+$/);
    const cpu = report.measurements.find((m) => m.device === 'cpu' && m.dtype === 'f32')!;
    expect(cpu.fault).toBeNull();
    expect(cpu.graphs.map(({ graph }) => graph).sort()).toEqual(['decode', 'prefill', 'training']);
    for (const { providers, elsewhere } of cpu.graphs) {
      expect(providers['cpu']).toBeGreaterThan(10);
      expect(elsewhere).toEqual([]);
    }
    expect(cpu.decode.map(({ batch }) => batch)).toEqual([1, 8]);
    for (const { tokensPerSecond } of cpu.decode) expect(tokensPerSecond).toBeGreaterThan(0);
    expect(cpu.training?.tokensPerSecond).toBeGreaterThan(0);
    expect(report.chosen.device).not.toBeNull();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
