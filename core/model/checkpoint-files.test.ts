/** Checkpoints in several files: read as one, each fault of the index named, no bound passed. */
import {
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LIMITS } from '../limits.ts';
import { INDEX_FILE, openCheckpoint, WEIGHTS_FILE } from './checkpoint-files.ts';
import { parameterShapes } from './parameters.ts';
import { parseSafetensors } from './safetensors.ts';
import { heldWeights } from './stored-weights.ts';
import { writeCheckpoint } from './testing/checkpoint-writer.ts';
import { TableRows } from './tensor-file.ts';
import type { ModelConfig } from './types.ts';

const CONFIG: ModelConfig = {
  modelType: 'llama',
  layers: 2,
  hidden: 8,
  heads: 2,
  kvHeads: 1,
  headDim: 4,
  intermediate: 12,
  vocabulary: 11,
  contextTokens: 32,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: false,
  tiedEmbeddings: true,
};
const FIRST = 'model-00001-of-00003.safetensors';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ramify-shards-'));
  writeCheckpoint(directory, CONFIG, { dtype: 'BF16', seed: 1, shards: 3 });
});
afterEach(() => rmSync(directory, { recursive: true }));

type WeightMap = Record<string, unknown>;
function changeIndex(change: (map: WeightMap) => unknown): void {
  const path = join(directory, INDEX_FILE);
  const index = JSON.parse(readFileSync(path, 'utf8')) as { weight_map: WeightMap };
  const changed = change(index.weight_map) ?? index.weight_map;
  writeFileSync(path, JSON.stringify({ ...index, weight_map: changed }));
}
function expectFault(fault: RegExp): void {
  expect(() => openCheckpoint(directory)).toThrowError(fault);
  expect(() => openCheckpoint(directory)).toThrowError(
    expect.objectContaining({ code: 'policy_invalid' }),
  );
}

describe('a checkpoint in several files', () => {
  it('has every tensor, with the values of its file', () => {
    const stored = openCheckpoint(directory);
    expect(new Set(stored.keys())).toEqual(new Set(parameterShapes(CONFIG).keys()));
    const first = parseSafetensors(readFileSync(join(directory, FIRST)), FIRST);
    const held = heldWeights(stored);
    for (const [name, tensor] of first) expect(held.get(name)).toEqual(tensor);
  });

  it('is left aside when the single file is there', () => {
    writeCheckpoint(directory, { ...CONFIG, layers: 1 }, { dtype: 'F32', seed: 2 });
    const stored = openCheckpoint(directory);
    expect(stored.size).toBe(parameterShapes({ ...CONFIG, layers: 1 }).size);
    expect([...stored.values()].every(({ path }) => path.endsWith(WEIGHTS_FILE))).toBe(true);
  });

  it('may be links into another folder', () => {
    const links = mkdtempSync(join(tmpdir(), 'ramify-links-'));
    for (const name of [FIRST, FIRST.replace('1', '2'), FIRST.replace('1', '3'), INDEX_FILE]) {
      symlinkSync(join(directory, name), join(links, name));
    }
    expect(openCheckpoint(links)).toEqual(openCheckpoint(directory));
    rmSync(links, { recursive: true });
  });

  it.each(['../x.safetensors', '/x.safetensors', 'a/b.safetensors', 'a\\b.safetensors', '', 3])(
    'refuses a file called %j',
    (file) => {
      changeIndex((map) => void (map['model.norm.weight'] = file));
      expectFault(/model\.norm\.weight: .* is no file of the directory/);
    },
  );

  it('refuses a tensor in the wrong file, one that no index lists, and a file that is missing', () => {
    changeIndex((map) => void (map['model.norm.weight'] = FIRST));
    expectFault(/model\.norm\.weight is not in model-00001-of-00003|is not listed in/);
    writeCheckpoint(directory, CONFIG, { dtype: 'BF16', seed: 1, shards: 3 });
    changeIndex((map) => void delete map['model.embed_tokens.weight']);
    expectFault(/model\.embed_tokens\.weight is not listed in model\.safetensors\.index\.json/);
    writeCheckpoint(directory, CONFIG, { dtype: 'BF16', seed: 1, shards: 3 });
    rmSync(join(directory, FIRST));
    expectFault(/model-00001-of-00003\.safetensors: ENOENT/);
  });

  it('refuses an index that is no map, too long, or of too many files', () => {
    changeIndex(() => []);
    expectFault(/weight_map is no JSON object/);
    const many = Array.from({ length: LIMITS.checkpointShardsMax + 1 }, (_, i) => [
      `t${i}`,
      `m${i}.safetensors`,
    ]);
    changeIndex(() => Object.fromEntries(many) as WeightMap);
    expectFault(/1025 files are more than 1024/);
    truncateSync(join(directory, INDEX_FILE), LIMITS.modelJsonBytesMax + 1);
    expectFault(/8388609 bytes are more than 8388608/);
  });
});

it('rows of a table are read alone, and none beyond its end', () => {
  const stored = openCheckpoint(directory);
  const table = stored.get('model.embed_tokens.weight')!;
  const { data } = heldWeights(stored).get('model.embed_tokens.weight')!;
  const rows = new TableRows(table);
  const width = CONFIG.hidden;
  const expected = [10, 0, 10].flatMap((id) => [...data.subarray(id * width, (id + 1) * width)]);
  expect([...rows.read(BigInt64Array.of(10n, 0n, 10n))]).toEqual(expected);
  expect(() => rows.read(BigInt64Array.of(11n))).toThrowError('row 11 of 11');
  rows.close();
});

it('a header longer than its bound is refused before it is read', () => {
  const path = join(directory, WEIGHTS_FILE);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(LIMITS.modelJsonBytesMax + 1));
  writeFileSync(path, length);
  truncateSync(path, LIMITS.modelJsonBytesMax + 100);
  expectFault(/header of 8388609 bytes is longer than 8388608/);
});
