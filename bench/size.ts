/**
 * npm run bench:size: what a model of Qwen2.5-0.5B's shape takes. Random checkpoints in float32 and
 * bfloat16 are written under a temporary folder (2 GB each, removed afterwards); for each a fresh
 * process loads it, prefills and decodes 1 and 8 rows, and another one trains an adapter of
 * rank 16 on a row of 1,024 tokens. Memory is the highest resident size of the process, files that
 * it maps included, against the bytes of the weights in float32. Linux only.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parameterCount } from '../core/model/parameters.ts';
import { writeCheckpoint } from '../core/model/testing/checkpoint-writer.ts';
import type { ModelConfig } from '../core/model/types.ts';
import { builtModule } from '../core/paths.ts';
import { spawnMeasured } from './measured-child.ts';
import { benchOptions, printTable, recordResults, type Row } from './report.ts';

const SHAPE: ModelConfig = {
  modelType: 'qwen2',
  layers: 24,
  hidden: 896,
  heads: 14,
  kvHeads: 2,
  headDim: 64,
  intermediate: 4864,
  vocabulary: 151_936,
  contextTokens: 32_768,
  ropeTheta: 1_000_000,
  rmsNormEpsilon: 1e-6,
  qkvBias: true,
  tiedEmbeddings: true,
};

const options = benchOptions(3);
const weightsMiB = (4 * parameterCount(SHAPE)) / 1024 / 1024;
const rows: Row[] = [];
for (const dtype of ['F32', 'BF16'] as const) {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-size-'));
  try {
    writeCheckpoint(folder, SHAPE, { dtype, seed: 1 });
    for (const mode of ['serve', 'train']) {
      if (mode === 'train' && dtype === 'F32') continue;
      const figures = await runChild(mode, folder);
      const ratio = Number(figures['peak MiB']) / weightsMiB;
      const row = { dtype, mode, ...figures, 'peak / weights': ratio.toFixed(2) };
      printTable([row]);
      rows.push(row);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
recordResults('size', options, rows);

function runChild(mode: string, folder: string): Promise<Row> {
  const script = fileURLToPath(builtModule(import.meta.url, './size-child.ts'));
  const args = [mode, folder, String(options.threads), String(options.repeats)];
  const child = spawnMeasured(script, args);
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  return new Promise((resolve, reject) => {
    child.on('exit', (code, signal) => {
      if (code === 0) resolve(JSON.parse(out) as Row);
      else reject(new Error(`${mode} ended with ${signal ?? code}`));
    });
  });
}
