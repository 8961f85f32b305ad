/** Devices of the machine that runs this test: trials are real, whatever they find. */
import { expect, test } from 'vitest';
import { CUDA_COMMAND } from '../model/devices.ts';
import { findDevices } from './find-devices.ts';

test('the cpu is always there, and every other device computes or says in one line why not', async () => {
  const findings = await findDevices(['cuda', 'webgpu', 'cpu']);
  expect(findings.map(({ device }) => device)).toEqual(['cuda', 'webgpu', 'cpu']);
  expect(findings[2]).toMatchObject({ fault: null, halfFault: null, software: false });
  for (const { fault, halfFault } of findings) {
    if (fault !== null) expect(halfFault).toBe(fault);
    expect(fault ?? 'computes').toMatch(/^[^\n]{3,}$/);
  }
});

test('without a GPU a quick look names that, and a trial names what is missing', async () => {
  const [quick] = await findDevices(['cuda'], { thorough: false });
  const [thorough] = await findDevices(['cuda']);
  // On a machine with CUDA both are null; elsewhere the longer look says what to do.
  if (quick?.fault === 'this machine has no GPU') {
    const helpful = [CUDA_COMMAND, 'is missing', 'has no cuda', 'CUDA'];
    expect(helpful.some((text) => thorough?.fault?.includes(text))).toBe(true);
  } else {
    expect(quick).toEqual(thorough);
  }
});
