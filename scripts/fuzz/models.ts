/**
 * npm run fuzz:models -- --count 200000 --seed 1: damaged checkpoints, each of which must load
 * correctly or be refused with policy_invalid: no other error, no crash, no hang, no memory beyond
 * a bound. Cases run in child processes, so that a crash, a hang or too much memory is counted with
 * the case that caused it, and the run goes on behind it. Exit code 1 when a case failed.
 */
import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { builtModule } from '../../core/paths.ts';
import type { FromBatch } from './batch.ts';

/** One case takes milliseconds; a busy machine may stop it for seconds. */
const CASE_TIMEOUT_MS = 20_000;
/** JavaScript's heap, of which a fine load takes a few megabytes. */
const HEAP_MIB = 192;
/** Resident memory of a child at its highest: node, the heap above, and what a case may read. */
const RSS_BYTES_MAX = 400 * 1024 * 1024;
const FAILURES_SHOWN = 20;

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '200000' },
    seed: { type: 'string', default: '1' },
    processes: { type: 'string', default: String(availableParallelism()) },
  },
});
const seed = Number(values.seed);
const count = Number(values.count);
const tally = new Map<string, number>();
const failures: string[] = [];
let rssMax = 0;

const begun = performance.now();
const lanes = Number(values.processes);
await Promise.all(Array.from({ length: lanes }, (_, lane) => runLane(lane)));
const seconds = (performance.now() - begun) / 1000;
const text = [...tally].map(([outcome, cases]) => `${cases} ${outcome}`).join(', ');
const mib = Math.round(rssMax / 1024 / 1024);
console.log(`${count} cases of seed ${seed} in ${seconds.toFixed(0)} s: ${text}`);
console.log(`highest memory of a child ${mib} MiB of ${RSS_BYTES_MAX / 1024 / 1024} allowed`);
for (const failure of failures.slice(0, FAILURES_SHOWN)) console.log(failure);
process.exitCode = failures.length > 0 ? 1 : 0;

async function runLane(lane: number): Promise<void> {
  for (let next = lane; next < count;) next = await runChild(next);
}

/** Runs cases until all are done or the child ends; the index to go on from. */
function runChild(from: number): Promise<number> {
  const home = mkdtempSync(join(tmpdir(), 'ramify-fuzz-'));
  const args = [home, String(seed), String(from), String(count), String(lanes)];
  const child = fork(builtModule(import.meta.url, './batch.ts'), args, {
    execArgv: [`--max-old-space-size=${HEAP_MIB}`],
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  let current = from;
  let ended = from - lanes;
  let reason = '';
  return new Promise((resolve) => {
    const stop = (why: string) => {
      reason = why;
      child.kill('SIGKILL');
    };
    let timer = setTimeout(stop, CASE_TIMEOUT_MS, 'no start');
    child.on('message', (message: FromBatch) => {
      clearTimeout(timer);
      if (message.type === 'begin') {
        current = message.index;
        timer = setTimeout(stop, CASE_TIMEOUT_MS, `hangs for ${CASE_TIMEOUT_MS} ms`);
        return;
      }
      ended = message.index;
      settle(message.index, message.outcome, `${message.file}: ${message.reason}`);
      rssMax = Math.max(rssMax, message.rss);
      if (message.rss > RSS_BYTES_MAX) {
        settle(message.index, 'too large', `takes ${message.rss} bytes`);
        stop('');
      }
    });
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      rmSync(home, { recursive: true, force: true });
      // The case that was begun and did not end is the one at fault.
      if (ended < current) settle(current, 'crashed', reason || `exit ${signal ?? code}`);
      resolve(Math.max(ended, current) + lanes);
    });
  });
}

function settle(index: number, outcome: string, reason: string): void {
  tally.set(outcome, (tally.get(outcome) ?? 0) + 1);
  if (outcome === 'loaded' || outcome === 'refused') return;
  failures.push(`case ${index}: ${outcome}: ${reason}`);
}
