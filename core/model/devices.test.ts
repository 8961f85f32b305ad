/** What a setting makes of the devices found, and one line for each way in which a trial fails. */
import { expect, test } from 'vitest';
import { CPU_FINDING, chooseDevice, explainFault, type DeviceFinding } from './devices.ts';

const gpu = (device: 'cuda' | 'webgpu', more: Partial<DeviceFinding> = {}): DeviceFinding => ({
  device,
  fault: null,
  halfFault: null,
  name: null,
  software: false,
  ...more,
});
const missing = { fault: 'no adapter', halfFault: 'no adapter' };
const swiftShader = gpu('webgpu', { name: 'SwiftShader Device', software: true });

test('auto takes cuda before webgpu before cpu and says why not the better ones', () => {
  const all = [gpu('cuda'), gpu('webgpu'), CPU_FINDING];
  expect(chooseDevice('auto', 'f32', all)).toEqual({ device: 'cuda', passedOver: [] });
  const noCuda = [gpu('cuda', missing), gpu('webgpu'), CPU_FINDING];
  expect(chooseDevice('auto', 'f32', noCuda)).toEqual({
    device: 'webgpu',
    passedOver: ['cuda: no adapter'],
  });
});

test('auto never takes a GPU that is computed on the CPU; by its name it is taken', () => {
  const findings = [gpu('cuda', missing), swiftShader, CPU_FINDING];
  expect(chooseDevice('auto', 'f32', findings)).toEqual({
    device: 'cpu',
    passedOver: [
      'cuda: no adapter',
      'webgpu: SwiftShader Device computes on the CPU; taken only when named',
    ],
  });
  expect(chooseDevice('webgpu', 'f32', findings).device).toBe('webgpu');
});

test('float16 passes over a device without it', () => {
  const findings = [
    gpu('cuda', missing),
    gpu('webgpu', { halfFault: 'no shader-f16' }),
    CPU_FINDING,
  ];
  expect(chooseDevice('auto', 'f32', findings).device).toBe('webgpu');
  expect(chooseDevice('auto', 'f16', findings)).toMatchObject({
    device: 'cpu',
    passedOver: ['cuda: no adapter', 'webgpu: no float16 (RAMIFY_DTYPE=f16): no shader-f16'],
  });
});

test('a named device that cannot compute is one line', () => {
  const refused = (message: string) =>
    expect.objectContaining({ code: 'config_invalid', message }) as Error;
  expect(() => chooseDevice('cuda', 'f32', [gpu('cuda', missing)])).toThrow(
    refused('RAMIFY_DEVICE=cuda: no adapter'),
  );
  expect(() =>
    chooseDevice('webgpu', 'f16', [gpu('webgpu', { halfFault: 'no shader-f16' })]),
  ).toThrow(refused('RAMIFY_DEVICE=webgpu: no float16 (RAMIFY_DTYPE=f16): no shader-f16'));
});

test.each([
  [
    'cuda',
    'Failed to load shared library',
    'libonnxruntime_providers_shared.so: cannot open shared object file',
    'fetch them: node node_modules/onnxruntime-node/script/install.js',
  ],
  ['cuda', 'x', 'libcudnn.so.9: cannot open shared object file', 'libcudnn.so.9 is missing'],
  ['cuda', "executionProviders[0] is unsupported: 'cuda'", '', 'has no cuda on this system'],
  ['cuda', '\n  CUDA failure 100: no device  \nat x', '', 'CUDA failure 100: no device'],
  ['webgpu', 'Failed to get a WebGPU adapter: No supported adapters', '', 'libvulkan1'],
  ['webgpu', 'Cast requires f16 but the device does not support it', '', 'shader-f16'],
  ['webgpu', '', '', 'it ended without a word'],
] as const)('%s: %j with %j is explained', (device, message, printed, expected) => {
  const line = explainFault(device, message, printed);
  expect(line).toContain(expected);
  expect(line).not.toContain('\n');
});
