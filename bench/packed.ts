/**
 * npm run bench:packed: gradients of a mini-batch with flat rows, with packed rows (arpo.md section
 * 7), and with the trainer's choice between them, in turns. `bound` is how many tokens flat rows
 * forward for each that packed rows do.
 */
import { createTrainingSession } from '../core/model/training-session.ts';
import type { TrainRow } from '../core/model/types.ts';
import { Prng } from '../core/prng.ts';
import { accumulateGradients, type MiniBatchResult } from '../core/trainer/micro-batch.ts';
import type { Packing } from '../core/trainer/pack-plan.ts';
import { tokensPerRun } from '../core/trainer/memory-budget.ts';
import { longWindow, RowMaker } from './forest-rows.ts';
import { benchModels } from './models.ts';
import { comparison, inTurns } from './packing-turns.ts';
import { benchOptions, printTable, recordResults, spentOn, type Row } from './report.ts';

const LOSS = { epsLow: 0.2, epsHigh: 0.2, dualClip: 3 };

const options = benchOptions(5);
const standard = benchModels()[0]!;
const config = longWindow(standard.config);
const make = new RowMaker(new Prng(9), config.vocabulary);
const shapes: Record<string, TrainRow[]> = {
  '16 x (128 + 32)': make.group(16, 128, 32),
  '16 x (128 + 128)': make.group(16, 128, 128),
  '16 x (1000 + 32)': make.group(16, 1000, 32),
  '16 x (1000 + 128)': make.group(16, 1000, 128),
  'branched, 4 groups of 16, steps of 40': Array.from({ length: 4 }, () =>
    make.branched(16, 120, 40),
  ).flat(),
  'unshared, 16 of 256': make.unshared(16, 256, false),
  'unshared, 32 up to 256': make.unshared(32, 256, true),
  'unshared, 4 of 1000': make.unshared(4, 1000, false),
  'pairs, 8 x 2 x (128 + 128)': Array.from({ length: 8 }, () => make.group(2, 128, 128)).flat(),
};
const session = createTrainingSession(config, standard.weights, {
  device: 'cpu',
  threads: options.threads,
});
const rows: Row[] = [];
for (const [shape, batch] of Object.entries(shapes)) rows.push(await benchShape(shape, batch));
await session.dispose();
printTable(rows);
recordResults('packed', options, rows);

async function benchShape(shape: string, batch: readonly TrainRow[]): Promise<Row> {
  const results = new Map<Packing, MiniBatchResult>();
  const tokenBudget = tokensPerRun(config);
  const spent = await inTurns(options.repeats, (packing) =>
    spentOn(async () => {
      const result = await accumulateGradients(session, batch, LOSS, { tokenBudget, packing });
      results.set(packing, result);
    }),
  );
  const forwarded = (form: Packing) => results.get(form)!.tokensForwarded;
  const { microBatches, packedMicroBatches, tokensTrained } = results.get('auto')!;
  return {
    shape,
    'trained tokens': tokensTrained,
    'forwarded flat': forwarded('flat'),
    'forwarded packed': forwarded('packed'),
    bound: forwarded('flat') / forwarded('packed'),
    ...comparison(spent),
    'packed runs of auto': `${packedMicroBatches} of ${microBatches}`,
  };
}
