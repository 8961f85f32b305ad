/** A candidate directory is whole or not there. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { directorySha256, writeCandidate } from './candidate.ts';

let root: string;
let base: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'ramify-candidate-'));
  base = join(root, 'base');
  await mkdir(base);
  await writeFile(join(base, 'config.json'), '{"hidden_size":8}');
  await writeFile(join(base, 'tokenizer.json'), '{"version":"1.0"}');
  await writeFile(join(base, 'model-00001-of-00002.safetensors'), 'old');
  await writeFile(join(base, 'model.safetensors.index.json'), '{}');
});
afterEach(() => rm(root, { recursive: true }));

const writeWeights = async (directory: string): Promise<void> => {
  await writeFile(join(directory, 'model.safetensors'), 'new weights');
  await writeFile(join(directory, 'config.json'), 'written again with the weights');
};

describe('writeCandidate', () => {
  it('copies everything but the weights and leaves nothing else behind', async () => {
    const directory = join(root, 'policies', '2');
    const { sha256 } = await writeCandidate({ base, directory, writeWeights });
    expect((await readdir(directory)).sort()).toEqual([
      'config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
    for (const name of ['tokenizer.json', 'config.json']) {
      expect(await readFile(join(directory, name))).toEqual(await readFile(join(base, name)));
    }
    expect(await readFile(join(directory, 'model.safetensors'), 'utf8')).toBe('new weights');
    expect(await readdir(join(root, 'policies'))).toEqual(['2']);
    expect(sha256).toBe(await directorySha256(directory));
  });

  it('leaves no trace of a write that failed', async () => {
    const directory = join(root, 'policies', '2');
    const broken = writeCandidate({
      base,
      directory,
      writeWeights: async (partial) => {
        await writeFile(join(partial, 'model.safetensors'), 'half of');
        throw new Error('disk full');
      },
    });
    await expect(broken).rejects.toMatchObject({
      code: 'storage_failed',
      message: `cannot write the policy to ${directory}: disk full`,
    });
    expect(await readdir(join(root, 'policies'))).toEqual([]);
  });

  it('replaces what a killed process left half written', async () => {
    const partial = join(root, 'policies', '.2.partial');
    await mkdir(partial, { recursive: true });
    await writeFile(join(partial, 'garbage.bin'), 'x');
    const directory = join(root, 'policies', '2');
    await writeCandidate({ base, directory, writeWeights });
    expect(await readdir(directory)).not.toContain('garbage.bin');
  });

  it('never overwrites a policy that exists', async () => {
    const directory = join(root, 'policies', '2');
    await writeCandidate({ base, directory, writeWeights });
    const before = await directorySha256(directory);
    const again = writeCandidate({
      base,
      directory,
      writeWeights: (partial) => writeFile(join(partial, 'model.safetensors'), 'other'),
    });
    await expect(again).rejects.toMatchObject({ code: 'storage_failed' });
    expect(await directorySha256(directory)).toBe(before);
  });
});

describe('directorySha256', () => {
  it('tells apart names, contents and the border between files', async () => {
    const hashes = new Set<string>();
    for (const [n, files] of [
      { a: 'xy', b: '' },
      { a: 'x', b: 'y' },
      { a: 'xy', c: '' },
    ].entries()) {
      const directory = join(root, `hash${n}`);
      await mkdir(directory);
      for (const [name, text] of Object.entries(files)) {
        await writeFile(join(directory, name), text);
      }
      hashes.add(await directorySha256(directory));
    }
    expect(hashes.size).toBe(3);
  });
});
