/**
 * Checkpoints on a real disk. What could silently break: a damaged or foreign one that is taken, a
 * good older one that is not, leftovers that pile up, a failed write that goes unnoticed.
 */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Weights } from '../model/types.ts';
import { CheckpointFolder, type Snapshot } from './checkpoint.ts';

const JOB = { runId: 'a', seed: 'b', 'settings.epochs': 'c' };

let root: string;
let folder: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'ramify-checkpoint-'));
  folder = join(root, 'checkpoints');
});
afterEach(() => rmSync(root, { recursive: true }));

const arrays = (step: number): Weights =>
  new Map([
    ['weights/a', { shape: [2, 3], data: Float32Array.from({ length: 6 }, (_, i) => i / step) }],
    ['first/a', { shape: [], data: Float32Array.of(-0) }],
  ]);

const snapshot = (step: number): Snapshot => ({
  step,
  savedAt: 1_000 + step,
  state: { counts: { rollouts: step }, share: 0.1 + 0.2, none: null },
  arrays: arrays(step),
});

async function saved(...steps: number[]): Promise<CheckpointFolder> {
  const checkpoints = new CheckpointFolder(folder, JOB);
  for (const step of steps) await checkpoints.save(snapshot(step));
  return checkpoints;
}

async function resume(job: Record<string, string> = JOB) {
  let found: Snapshot | null = null;
  const result = await new CheckpointFolder(folder, job).resume((each) => {
    found = each;
  });
  return { ...result, found: found as Snapshot | null };
}

const fileOf = (step: number, name: string): string =>
  join(folder, `step-${String(step).padStart(6, '0')}`, name);

describe('a checkpoint folder', () => {
  it('gives back the newest snapshot, to the bit', async () => {
    await saved(10, 20);
    expect(await resume()).toEqual({
      taken: { step: 20, savedAt: 1_020 },
      refused: [],
      found: snapshot(20),
    });
  });

  it('keeps two, and no leftovers of a crash', async () => {
    await saved(10, 20);
    mkdirSync(join(folder, '.step-000030.partial'));
    await saved(30);
    expect(readdirSync(folder).sort()).toEqual(['step-000020', 'step-000030']);
  });

  it('does not exist before the first one', async () => {
    expect(await resume()).toEqual({ taken: null, refused: [], found: null });
  });

  it('never takes one that is not whole', async () => {
    await saved(10);
    mkdirSync(join(folder, '.step-000020.partial'));
    writeFileSync(join(folder, '.step-000020.partial', 'state.json'), '{}');
    expect((await resume()).taken?.step).toBe(10);
  });

  const damages: [string, (step: number) => void, string][] = [
    [
      'arrays cut short',
      (step) => truncateSync(fileOf(step, 'arrays.safetensors'), 100),
      'is damaged',
    ],
    ['a flipped bit in the arrays', (step) => flip(fileOf(step, 'arrays.safetensors')), 'damaged'],
    ['a state cut short', (step) => truncateSync(fileOf(step, 'state.json'), 100), 'JSON'],
    ['another number in the state', (step) => edit(fileOf(step, 'state.json')), 'damaged'],
    ['no arrays', (step) => rmSync(fileOf(step, 'arrays.safetensors')), 'no such file'],
    ['no state', (step) => rmSync(fileOf(step, 'state.json')), 'missing'],
  ];
  it.each(damages)('passes over one with %s, for the one before it', async (_, damage, why) => {
    await saved(10, 20);
    damage(20);
    const { taken, refused, found } = await resume();
    expect(taken?.step).toBe(10);
    expect(found).toEqual(snapshot(10));
    expect(refused).toEqual([expect.stringContaining('checkpoint of step 20')]);
    expect(refused[0]).toContain(why);
  });

  it('starts over when none is of use, and then puts its own in their place', async () => {
    await saved(10, 20);
    for (const step of [10, 20]) flip(fileOf(step, 'arrays.safetensors'));
    const { taken, refused } = await resume();
    expect({ taken, refused: refused.length }).toEqual({ taken: null, refused: 2 });
    await saved(10);
    expect(readdirSync(folder)).toEqual(['step-000010']);
    expect((await resume()).found).toEqual(snapshot(10));
  });

  it('refuses those of another job, and says what differs', async () => {
    await saved(10);
    const { taken, refused } = await resume({ ...JOB, seed: 'x', 'settings.beta': 'y' });
    expect(taken).toBeNull();
    expect(refused).toEqual([
      'checkpoint of step 10: it is of another job: seed, settings.beta differ',
    ]);
  });

  it('refuses one that cannot be restored, for the one before it', async () => {
    const checkpoints = await saved(10, 20);
    const { taken, refused } = await checkpoints.resume(({ step }) => {
      if (step === 20) throw new Error('does not fit');
    });
    expect(taken?.step).toBe(10);
    expect(refused).toEqual(['checkpoint of step 20: does not fit']);
  });

  it('says so when it cannot write', async () => {
    writeFileSync(folder, 'a file in the way');
    await expect(saved(10)).rejects.toMatchObject({
      code: 'storage_failed',
      message: expect.stringContaining(`cannot write the checkpoint of step 10 to ${folder}`),
    });
  });
});

function flip(path: string): void {
  const bytes = readFileSync(path);
  const at = bytes.length - 2;
  bytes[at] = (bytes[at] as number) ^ 1;
  writeFileSync(path, bytes);
}

function edit(path: string): void {
  writeFileSync(path, readFileSync(path, 'utf8').replace('"rollouts":20', '"rollouts":21'));
}
