/**
 * A child of models.ts: runs cases from one index on and reports each, before and after. Dies
 * when it takes too much memory, which its parent sees.
 */
import { runCase, writeCorpus } from './model-case.ts';

/** What a child tells its parent. */
export type FromBatch =
  | { type: 'begin'; index: number }
  | { type: 'end'; index: number; outcome: string; file: string; reason: string; rss: number };

const [home, seed, from, to, step] = process.argv.slice(2) as [string, ...string[]];
const corpus = writeCorpus(home);
for (let index = Number(from); index < Number(to); index += Number(step)) {
  send({ type: 'begin', index });
  const result = await runCase(home, corpus, { seed: Number(seed), index });
  send({ type: 'end', index, ...result, rss: process.resourceUsage().maxRSS * 1024 });
  // Messages leave only when the event loop turns.
  await new Promise(setImmediate);
}
process.disconnect();

function send(message: FromBatch): void {
  process.send?.(message);
}
