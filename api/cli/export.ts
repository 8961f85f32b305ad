/**
 * `ramify export`: logged trajectories as JSON lines, oldest first, one page of the log in memory
 * at a time, beside a running server if there is one. `ramify` lines lose nothing and can be
 * imported again; `openai` lines are chat messages for fine-tuning elsewhere.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { systemClock } from '../../core/clock.ts';
import type { Feedback, TrajectoryRecord } from '../../core/records.ts';
import type { Stores } from '../../db/stores.ts';
import { chatLine, PolicyTexts } from '../chat-lines.ts';
import { trajectoryLine } from '../trajectory-lines.ts';
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
        const wanted = first(trajectoriesOf(stores, filter), max);
        const lines = linesOf(stores, wanted, format, counts);
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
  trajectories: Iterable<TrajectoryRecord>,
  format: Format,
  counts: Counts,
): AsyncGenerator<string> {
  const texts = new PolicyTexts(stores.policies);
  for (const trajectory of trajectories) {
    // A turn of the event loop each: signals are heard.
    await nextTurn();
    const steps = stores.trajectories.path(trajectory.leafStepId);
    const line =
      format === 'ramify'
        ? trajectoryLine({ trajectory, steps, feedback: [...feedbackOf(stores, trajectory.id)] })
        : chatLine({ trajectory, steps }, { texts, tasks: stores.tasks });
    if (line === null) counts.leftOut++;
    else {
      counts.trajectories++;
      yield line;
    }
  }
}

function* feedbackOf({ feedback }: Stores, trajectoryId: string): Generator<Feedback> {
  let cursor: string | null = null;
  do {
    const page = feedback.list(trajectoryId, cursor === null ? {} : { cursor });
    yield* page.items;
    cursor = page.nextCursor;
  } while (cursor !== null);
}

function* first<T>(items: Iterable<T>, max: number): Generator<T> {
  let taken = 0;
  if (max <= 0) return;
  for (const item of items) {
    yield item;
    if (++taken >= max) return;
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
