/** What a doctor's report leads to, and that its text says what was measured. */
import { expect, test } from 'vitest';
import { CPU_FINDING, CUDA_COMMAND, type DeviceFinding } from '../../core/model/devices.ts';
import { adviceFor } from './doctor-advice.ts';
import { doctorText } from './doctor-text.ts';
import type { DoctorReport, Measurement } from './doctor.ts';

const found = (device: 'cuda' | 'webgpu', fault: string | null): DeviceFinding => ({
  ...CPU_FINDING,
  device,
  fault,
  halfFault: fault,
});

function measured(
  device: Measurement['device'],
  dtype: Measurement['dtype'],
  rate: number | null,
): Measurement {
  const decode = [1, 8].map((batch) => ({ batch, tokensPerSecond: rate ?? 0 }));
  return {
    device,
    dtype,
    graphs: [{ graph: 'decode', providers: { [device]: 200, cpu: 12 }, elsewhere: ['LogSoftmax'] }],
    decode: rate === null ? [] : decode,
    training: null,
    fault: rate === null ? 'it was not done within 11 s' : null,
  };
}

function report(change: Partial<DoctorReport>): DoctorReport {
  return {
    versions: { ramify: '1', node: '20', onnxruntime: '1', platform: 'linux x64' },
    machine: { cores: 2, cpu: 'a cpu', memoryBytes: 8e9, freeBytes: 4e9, load: 0 },
    settings: {
      device: 'auto',
      dtype: 'f32',
      engineThreads: 1,
      trainerThreads: 1,
      policyFolder: 'folder',
    },
    devices: [found('cuda', null), found('webgpu', null), CPU_FINDING],
    chosen: { device: 'cuda', passedOver: [], fault: null },
    measurements: [],
    python: { version: '3.11.2', fault: null },
    advice: [],
    ...change,
  };
}

test('a small policy that is faster on the cpu: says so, with the setting', () => {
  const advice = adviceFor(
    report({ measurements: [measured('cpu', 'f32', 6000), measured('cuda', 'f32', 2000)] }),
  ).join('\n');
  expect(advice).toContain('3.0 times faster on cpu: so small a policy does not fill a GPU');
  expect(advice).toContain('RAMIFY_DEVICE=cpu');
});

test('a GPU that is faster than the device taken is named; one that is taken is not', () => {
  const rates = [measured('cpu', 'f32', 1000), measured('webgpu', 'f32', 8000)];
  const onCpu = { device: 'cpu' as const, passedOver: [], fault: null };
  const advice = adviceFor(report({ measurements: rates, chosen: onCpu })).join('\n');
  expect(advice).toContain('8.0 times faster on webgpu. Set RAMIFY_DEVICE=webgpu.');
  const taken = adviceFor(report({ measurements: rates, chosen: { ...onCpu, device: 'webgpu' } }));
  expect(taken.join('\n')).not.toContain('times faster');
});

test('float16 on the cpu, missing CUDA libraries, a busy machine and too many threads', () => {
  const { settings, machine } = report({});
  const advice = adviceFor(
    report({
      devices: [found('cuda', `fetch them: ${CUDA_COMMAND}`), found('webgpu', 'no'), CPU_FINDING],
      chosen: { device: 'cpu', passedOver: [], fault: null },
      measurements: [measured('cpu', 'f32', 3000), measured('cpu', 'f16', 1500)],
      settings: { ...settings, dtype: 'f16', engineThreads: 2 },
      machine: { ...machine, load: 5 },
    }),
  ).join('\n');
  expect(advice).toContain('float16 on the cpu is 2.0 times slower');
  expect(advice).toContain('Set RAMIFY_DTYPE=f32');
  expect(advice).toContain(CUDA_COMMAND);
  expect(advice).toContain('libvulkan1');
  expect(advice).toContain('The machine is busy (load 5.0 on 2 cores)');
  expect(advice).toContain('2 serving and 1 training threads are more than 2 cores');
});

test('the text shows faults, speeds, and what ran elsewhere', () => {
  const text = doctorText(
    report({ measurements: [measured('cpu', 'f32', 3210), measured('webgpu', 'f32', null)] }),
  );
  expect(text).toContain('RAMIFY_DEVICE=auto takes cuda.');
  expect(text).toMatch(/cpu f32 +3,210 +3,210 +-/);
  expect(text).toMatch(/webgpu f32 +- +- +- +it was not done within 11 s/);
  expect(text).toContain('webgpu 200, cpu 12 (not on webgpu: LogSoftmax)');
  expect(text).toContain('- Nothing stands out.');
});

test('the tool python: its version, or what to install', () => {
  expect(doctorText(report({}))).toContain('Tool python: Python 3.11.2');
  const fault = 'needs bubblewrap (apt-get install bubblewrap)';
  expect(doctorText(report({ python: { version: null, fault } }))).toContain(
    'Tool python: no: needs bubblewrap (apt-get install bubblewrap)',
  );
});
