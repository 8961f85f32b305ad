/**
 * npm run fuzz:packed -- --count 1000 --seed 1: packed training against flat training on random
 * forests, over model kinds, with and without adapters, under every clip rule. Prints the largest
 * differences; exit code 1 when a loss differs by more than 1e-6 or a gradient tensor by 1e-4 of
 * its length.
 */
import { parseArgs } from 'node:util';
import {
  compareForms,
  forestFor,
  LOSSES,
  PACKED_KINDS,
  sessionOf,
} from '../../core/model/testing/packed-comparison.ts';
import { Prng } from '../../core/prng.ts';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
  },
});
const prng = new Prng(Number(values.seed));
const count = Number(values.count);
let [loss, gradient, done, failed] = [0, 0, 0, 0];
for (const [i, kind] of PACKED_KINDS.entries()) {
  const session = sessionOf(kind, prng);
  for (let trial = i; trial < count; trial += PACKED_KINDS.length) {
    const terms = LOSSES[Math.floor(trial / PACKED_KINDS.length) % LOSSES.length]!;
    const apart = await compareForms(session, forestFor(session, prng), terms);
    loss = Math.max(loss, apart.loss);
    gradient = Math.max(gradient, apart.gradient);
    failed += Number(!(apart.loss <= 1e-6 && apart.gradient <= 1e-4));
    done++;
  }
  await session.dispose();
}
console.log(
  `${done} forests, ${failed} failed: loss apart by at most ${loss.toExponential(1)}, ` +
    `a gradient by at most ${gradient.toExponential(1)} of its length`,
);
if (failed > 0) process.exitCode = 1;
