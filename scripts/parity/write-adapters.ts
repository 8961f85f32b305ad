/**
 * Writes what scripts/parity/check_peft.py reads: for each adapter fixture, the same adapter after
 * one AdamW update, saved by ramify, with the logits that ramify computes under it.
 * `node dist/scripts/parity/write-adapters.js FOLDER`.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { must } from '../../core/assert.ts';
import { loadAdapter, saveAdapter } from '../../core/model/lora-directory.ts';
import { heldWeights } from '../../core/model/stored-weights.ts';
import { createTrainingSession } from '../../core/model/training-session.ts';
import { ADAMW_DEFAULTS, initAdamW, updateAdamW } from '../../core/trainer/adamw.ts';
import { weightSumOf } from '../../core/trainer/micro-batch.ts';
import {
  fixtureNames,
  fixtureRoot,
  readFixture,
  trainRow,
  type FixtureRow,
} from '../../test/parity/fixtures.ts';
import { wholeRowLogits } from '../../test/parity/whole-row.ts';

interface Expected {
  ids: number[];
  clip: { epsLow: number; epsHigh: number; dualClip: number };
  rows: FixtureRow[];
}

const folder = must(process.argv[2], 'the folder to write to');
for (const name of fixtureNames('adapters')) await writeAdapter(name, join(folder, name));

async function writeAdapter(name: string, directory: string): Promise<void> {
  const policy = loadAdapter(join(fixtureRoot, 'adapters', name));
  const { config, adapter, baseDirectory } = policy;
  const { ids, clip, rows: given } = readFixture<Expected>('adapters', name, 'expected.json');
  const weights = heldWeights(policy.baseWeights());
  const session = createTrainingSession(config, weights, { device: 'cpu', threads: 1, adapter });
  const rows = given.map(trainRow);
  const loss = { ...clip, weightSum: weightSumOf(rows) };
  const { gradients } = await session.lossAndGradients(rows, loss);
  await session.dispose();
  const settings = { ...ADAMW_DEFAULTS, learningRate: 0.01 };
  updateAdamW(adapter.weights, gradients, initAdamW(adapter.weights), settings);
  mkdirSync(directory, { recursive: true });
  saveAdapter(directory, adapter, { baseDirectory });
  const logits = await wholeRowLogits({ config, weights }, ids, adapter);
  writeFileSync(join(directory, 'logits.json'), JSON.stringify({ ids, logits: [...logits] }));
}
