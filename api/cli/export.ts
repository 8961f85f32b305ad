/**
 * `ramify export`: logged trajectories as JSON lines, oldest first, one page of the log in memory
 * at a time, beside a running server if there is one (trajectory-export.ts). `ramify` lines lose
 * nothing and can be imported again; `openai` lines are chat messages for fine-tuning elsewhere.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { systemClock } from '../../core/clock.ts';
import type { Stores } from '../../db/stores.ts';
import type { TrajectoryFilter } from '../../db/trajectory-filter.ts';
import { chatLine, PolicyTexts } from '../chat-lines.ts';
import { exportChunks } from '../trajectory-export.ts';
import { choice, EXIT, integer, readWords, SERVER_HELP } from './command.ts';
import type { Command } from './command.ts';
import { reading } from './data-folder.ts';
import { writeLines } from './line-files.ts';
import { Progress } from './output.ts';
import { FILTER_FLAGS, FILTER_HELP, readFilter, trajectoriesOf } from './trajectory-flags.ts';

const FLAGS = {
  ...FILTER_FLAGS,
  format: { type: 'string' },
  limit: { type: 'string' },
} as const;

const HELP = `npx ramify export [FILE] [flags]: writes trajectories as JSON lines, oldest first.
  FILE                 a file, compressed when its name ends in .gz; stdout when left out
  --format NAME        ramify (default): everything, for import; openai: chat messages. Those whose
                       messages the log does not have are left out and counted
  --limit N            at most so many
${FILTER_HELP}
${SERVER_HELP}; with FILE - the lines themselves
Examples:
  npx ramify export all.jsonl.gz
  npx ramify export --source live --scored --since 7d week.jsonl
  npx ramify export --format openai --reward-min 1 good.jsonl`;

type Format = 'ramify' | 'openai';

interface Counts {
  trajectories: number;
  /** Without messages in the log (openai). */
  leftOut: number;
}

export const exportCommand: Command = {
  summary: 'trajectories as JSON lines, to import elsewhere or to fine-tune on',
  help: HELP,
  run: async (call) => {
    const { flags, rest, config } = readWords(call, FLAGS, 1);
    const { output, signal } = call;
    const file = rest[0] ?? '-';
    const format = choice('--format', flags.format ?? 'ramify', ['ramify', 'openai']);
    const filter = readFilter(flags, systemClock.now());
    const max = flags.limit === undefined ? Infinity : integer('--limit', flags.limit, 0, 1e9);
    const progress = new Progress(output, 'exported', null);
    const counts: Counts = { trajectories: 0, leftOut: 0 };
    try {
      await reading(config, async (stores) => {
        const lines = linesOf(stores, { filter, max, format }, counts);
        const shown = counted(lines, () => progress.update(counts.trajectories));
        await writeLines(file, shown, { stdout: process.stdout, signal });
      });
    } finally {
      progress.close();
    }
    // Where the lines went to stdout, nothing else may.
    if (file !== '-') await output.record({ object: 'export', file, format, ...snake(counts) });
    output.note(`exported ${counts.trajectories} trajectories${leftOut(counts)}`);
    return EXIT.done;
  },
};

async function* linesOf(
  stores: Stores,
  { filter, max, format }: { filter: TrajectoryFilter; max: number; format: Format },
  counts: Counts,
): AsyncGenerator<string | Uint8Array> {
  if (max <= 0) return;
  const lines = format === 'ramify' ? ramifyLines(stores, filter) : chatLines(stores, filter);
  for (const line of lines) {
    // A turn of the event loop each: signals are heard.
    await nextTurn();
    if (line === null) counts.leftOut++;
    else {
      counts.trajectories++;
      yield line;
    }
    if (counts.trajectories + counts.leftOut >= max) return;
  }
}

function* ramifyLines({ logReader }: Stores, filter: TrajectoryFilter): Generator<Uint8Array> {
  for (const { bytes } of exportChunks(logReader, filter, 1)) yield bytes;
}

/** Null for one whose messages the log does not have. */
function* chatLines(stores: Stores, filter: TrajectoryFilter): Generator<string | null> {
  const texts = new PolicyTexts(stores.policies);
  for (const trajectory of trajectoriesOf(stores, filter)) {
    const steps = stores.trajectories.path(trajectory.leafStepId);
    const line = chatLine({ trajectory, steps }, { texts, tasks: stores.tasks });
    yield line === null ? null : `${line}\n`;
  }
}

async function* counted<T>(items: AsyncIterable<T>, seen: () => void): AsyncGenerator<T> {
  for await (const item of items) {
    seen();
    yield item;
  }
}

const snake = ({ trajectories, leftOut }: Counts) => ({ trajectories, left_out: leftOut });

function leftOut({ leftOut: count }: Counts): string {
  return count === 0 ? '' : `, left out ${count} whose messages the log does not have`;
}
