/**
 * WebGPU computes what the CPU computes: the engine's decoding (the Loop included) and a training
 * step with all its gradients, to 1e-3, on a tiny policy. Each side is a process of its own. Where
 * there is no GPU, SwiftShader computes it, which comes with Chromium: Debian's packages `chromium`
 * and `libvulkan1`. Without an adapter the comparison is not run and says so; in CI that is a
 * failure.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { writeRandomPolicy } from '../../api/testing/random-policy.ts';
import { findDevices } from '../../core/engine/find-devices.ts';
import { builtModule } from '../../core/paths.ts';
import type { DeviceFigures } from './device-figures.ts';

const TOLERANCE = 1e-3;
/** SwiftShader compiles every program of the graphs on the CPU: about 20 s on a quiet core. */
const PROCESS_TIMEOUT_MS = 240_000;
/** Where Chromium and Chrome put the description of their Vulkan driver. */
const SWIFTSHADER = [
  '/usr/lib/chromium/vk_swiftshader_icd.json',
  '/usr/lib/chromium-browser/vk_swiftshader_icd.json',
  '/opt/google/chrome/vk_swiftshader_icd.json',
];

const folder = mkdtempSync(join(tmpdir(), 'ramify-webgpu-'));
const given = process.env['VK_ICD_FILENAMES'];
/** Why there is nothing to compare; null when there is an adapter. */
let fault: string | null = null;

beforeAll(async () => {
  writeRandomPolicy(folder);
  fault = await adapterFault();
  if (fault === null) return;
  process.env['VK_ICD_FILENAMES'] = SWIFTSHADER.find((path) => existsSync(path));
  fault = await adapterFault();
});

afterAll(() => {
  if (given === undefined) delete process.env['VK_ICD_FILENAMES'];
  else process.env['VK_ICD_FILENAMES'] = given;
  rmSync(folder, { recursive: true });
});

async function adapterFault(): Promise<string | null> {
  const [finding] = await findDevices(['webgpu']);
  return finding?.fault ?? null;
}

async function figuresOf(device: 'cpu' | 'webgpu'): Promise<DeviceFigures> {
  const module = fileURLToPath(builtModule(import.meta.url, './device-figures.ts'));
  const child = spawn(process.execPath, [module, device, folder], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: PROCESS_TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  expect({ code, signal, err: err.slice(-2_000) }).toMatchObject({ code: 0, signal: null });
  return JSON.parse(out) as DeviceFigures;
}

/** The largest |a - b| / max(1, |b|). */
function difference(actual: readonly number[], expected: readonly number[]): number {
  expect(actual).toHaveLength(expected.length);
  return Math.max(...expected.map((b, i) => Math.abs(actual[i]! - b) / Math.max(1, Math.abs(b))));
}

test(
  'decoding and a training step are those of the cpu',
  async ({ skip }) => {
    if (fault !== null) {
      expect(process.env['CI'], `WebGPU must be tested in CI: ${fault}`).toBeUndefined();
      const why = `WebGPU is not tested: ${fault}; a software one: packages chromium, libvulkan1`;
      process.stderr.write(`${why}\n`);
      return skip(why);
    }
    const cpu = await figuresOf('cpu');
    const webgpu = await figuresOf('webgpu');
    cpu.sampled.forEach((expected, i) => {
      const actual = webgpu.sampled[i]!;
      expect(actual.tokens).toEqual(expected.tokens);
      expect(difference(actual.logprobs, expected.logprobs)).toBeLessThan(TOLERANCE);
      expect(difference(actual.entropies, expected.entropies)).toBeLessThan(TOLERANCE);
    });
    expect(difference([webgpu.loss], [cpu.loss])).toBeLessThan(TOLERANCE);
    cpu.logprobs.forEach((row, i) => {
      expect(difference(webgpu.logprobs[i]!, row)).toBeLessThan(TOLERANCE);
    });
    const names = Object.keys(cpu.gradients);
    expect(Object.keys(webgpu.gradients)).toEqual(names);
    for (const name of names) {
      const expected = cpu.gradients[name]!;
      // Not a comparison of zeros.
      expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(TOLERANCE);
      expect(difference(webgpu.gradients[name]!, expected)).toBeLessThan(TOLERANCE);
    }
  },
  2 * PROCESS_TIMEOUT_MS,
);
