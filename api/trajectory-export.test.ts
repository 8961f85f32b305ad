/** Exported bytes, which readers and stored files rely on: pinned, whatever makes them faster. */
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { ManualClock } from '../core/clock.ts';
import { Prng } from '../core/prng.ts';
import type { StepRecord, TrajectoryRecord } from '../core/records.ts';
import { LogReader } from '../db/log-reader.ts';
import { openDatabase } from '../db/open.ts';
import { openStores } from '../db/stores.ts';
import type { Stores } from '../db/stores.ts';
import { chain, trajectoryOf } from '../test/fixtures/random-records.ts';
import { exportChunks } from './trajectory-export.ts';
import { readTrajectoryLine, trajectoryLine } from './trajectory-lines.ts';

/** More than a page of them, in forests whose branches share steps. */
const FORESTS = 40;

/** Of all sizes, and what JSON has no number for. */
function oddFigures(prng: Prng, count: number): Float32Array {
  const odd = [0, -0, NaN, Infinity, -Infinity, 1e-45, -3.4028235e38, 1 / 3, 1, -1, 1e9, 9.9999995];
  return Float32Array.from({ length: count }, () => {
    if (prng.next() < 0.2) return prng.pick(odd);
    return (prng.next() < 0.9 ? -1 : 1) * Math.exp(60 * prng.next() - 40);
  });
}

/** Every kind of figure and of sampling option. */
function odd(prng: Prng, step: StepRecord): StepRecord {
  if (step.logprobs === null) return step;
  const figures = (): Float32Array => oddFigures(prng, step.tokens.length);
  return {
    ...step,
    logprobs: figures(),
    entropies: figures(),
    behaviourLogprobs: step.behaviourLogprobs && figures(),
    sampling: {
      ...step.sampling!,
      temperature: prng.next(),
      ...(prng.next() < 0.5 && { frequencyPenalty: 0.5, presencePenalty: -1 }),
    },
  };
}

/** Three trajectories below two shared steps, and feedback on the second one. */
async function forest(stores: Stores, prng: Prng, i: number): Promise<void> {
  const root = chain(prng, `step_${i}_root`, 2);
  const paths = Array.from({ length: 3 }, (_, k) =>
    chain(prng, `step_${i}_${k}`, 1 + prng.below(4), root.at(-1)),
  );
  const trajectories = paths.map((path, k): TrajectoryRecord => {
    const tools = [{ name: 'find', description: 'Finds "é".', parameters: { type: 'object' } }];
    return trajectoryOf(`traj_${i}_${k}`, path.at(-1)!, {
      createdAt: 1_767_225_600_000 + 1_000 * i + k,
      branchedFromStepId: k === 0 ? null : root.at(-1)!.id,
      answer: prng.pick([null, '42', 'a "quoted"\n\u{1f600}']),
      reward: prng.pick([null, -1, 0, 1, prng.next()]),
      ...(i % 3 === 0 && { offer: { tools, metadata: k === 0 ? { order: '17' } : null } }),
    });
  });
  const steps = [...root, ...paths.flat()].map((step) => odd(prng, step));
  await stores.stepLog.append({ steps, trajectories });
  const value = [true, 'a "comment" \u{1f600}', 0.1 + 0.2][i % 4];
  if (value === undefined) return;
  await stores.feedback.record({
    id: `fb_${i}`,
    trajectoryId: `traj_${i}_1`,
    stepId: value === true ? null : paths[1]![0]!.id,
    metricName: 'rated',
    value,
    tags: i % 2 === 0 ? {} : { who: 'é' },
    createdAt: 1_767_225_600_123,
  });
}

test('the bytes are those of ever, in chunks of any size, and what is read is written again', async () => {
  const db = openDatabase(':memory:');
  const stores = openStores(db, new ManualClock());
  const prng = new Prng(5);
  await Promise.all(Array.from({ length: FORESTS }, (_, i) => forest(stores, prng, i)));
  const of = (chunkBytes: number): Buffer =>
    Buffer.concat([...exportChunks(new LogReader(db), {}, chunkBytes)].map(({ bytes }) => bytes));
  const whole = of(64 * 1024);
  expect(of(1).equals(whole)).toBe(true);
  const lines = whole.toString().trimEnd().split('\n');
  expect(lines).toHaveLength(3 * FORESTS);
  for (const line of lines) expect(trajectoryLine(readTrajectoryLine(line))).toBe(line);
  const digest = createHash('sha256').update(whole).digest('hex');
  expect(digest).toBe('dafdfcbc34ddf27f85109a2793f6a41e2241cb5dca5b9a527bd81a189782f46c');
  stores.close();
});
