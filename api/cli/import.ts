/**
 * `ramify import`: task files as `POST /v1/tasks` takes them, and trajectory files that
 * `ramify export` wrote. Both may be repeated: what has an id that is known is not doubled. A file
 * of tasks is imported whole or not at all; a file of trajectories in batches, so that any size
 * fits in memory, up to the first wrong line.
 */
import { AppError, toAppError } from '../../core/errors.ts';
import { systemClock } from '../../core/clock.ts';
import { idGenerator } from '../../core/ids.ts';
import { LIMITS } from '../../core/limits.ts';
import type { Stores } from '../../db/stores.ts';
import type { Config } from '../config.ts';
import { loadContract } from '../contract/contract.ts';
import { collectionsFile, storedCollections } from '../own-tools.ts';
import { runCleanups, startTools } from '../parts.ts';
import type { Cleanup } from '../parts.ts';
import { readTaskLines, requireTools } from '../task-lines.ts';
import { TrajectoryImport } from '../trajectory-import.ts';
import { readTrajectoryLine } from '../trajectory-lines.ts';
import { EXIT, readWords, SERVER_HELP } from './command.ts';
import type { Call, Command } from './command.ts';
import { writing } from './data-folder.ts';
import { readLines } from './line-files.ts';
import { Progress } from './output.ts';

const HELP = `npx ramify import FILE [flags]: reads JSON lines into a data folder that no server uses.
  FILE                 tasks (as POST /v1/tasks takes them) or trajectories (as export writes them);
                       its first line says which. Compressed when its name ends in .gz; - is stdin
Both may be repeated: a task with a known id is replaced, a trajectory with a known id stays as it
is, and only feedback that it does not have yet is added.
${SERVER_HELP}
Examples:
  npx ramify import tasks.jsonl
  npx ramify import all.jsonl.gz --data other-folder`;

export const importCommand: Command = {
  summary: 'task files, and trajectories that were exported',
  help: HELP,
  run: async (call) => {
    const { rest, config } = readWords(call, {}, 1);
    const [file] = rest;
    if (file === undefined) throw new AppError('invalid_request', 'import needs a FILE');
    const lines = withoutBlank(numbered(readLines(file, process.stdin)));
    const first = await lines.next();
    if (first.done === true) throw new AppError('invalid_request', `${file}: has no line`);
    const all = startingWith(first.value, lines);
    const kind = kindOf(file, first.value);
    await writing(config, (stores) =>
      kind === 'tasks'
        ? importTasks(call, { file, stores, config }, all)
        : importTrajectories(call, { file, stores }, all),
    );
    return EXIT.done;
  },
};

interface Line {
  number: number;
  text: string;
}

function kindOf(file: string, { number, text }: Line): 'tasks' | 'trajectories' {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const { message } = cause as Error;
    throw new AppError('invalid_json', `${file}: line ${number}: not valid JSON: ${message}`, {
      cause,
    });
  }
  if (typeof value === 'object' && value !== null) {
    if ('question' in value) return 'tasks';
    if ('steps' in value) return 'trajectories';
  }
  const forms = 'a task (it would have a question) or a trajectory (it would have steps)';
  throw new AppError('invalid_request', `${file}: line ${number} is neither ${forms}`);
}

async function importTasks(
  { output }: Call,
  { file, stores, config }: { file: string; stores: Stores; config: Config },
  lines: AsyncIterable<Line>,
): Promise<void> {
  const cleanups: Cleanup[] = [];
  const logger = output.logger(config.logLevel);
  try {
    const collections = storedCollections(collectionsFile(config.dataFolder), cleanups);
    const tools = await startTools(config, collections, logger, cleanups);
    const contract = loadContract();
    const newId = idGenerator(systemClock);
    const tasks = [];
    for await (const line of lines) {
      tasks.push(...atLine(file, line, () => readTaskLines(contract, line.text, newId)));
      if (tasks.length <= LIMITS.tasksPerImportMax) continue;
      throw new AppError('task_invalid', `${file}: more than ${LIMITS.tasksPerImportMax} tasks`);
    }
    requireTools(tasks, tools);
    const { created, replaced } = stores.tasks.import(tasks);
    await output.record({ object: 'import', file, kind: 'tasks', created, replaced });
    await output.text(`imported ${created + replaced} tasks, ${replaced} of them known before`);
  } finally {
    await runCleanups(cleanups, logger);
  }
}

async function importTrajectories(
  { output, signal }: Call,
  { file, stores }: { file: string; stores: Stores },
  lines: AsyncIterable<Line>,
): Promise<void> {
  const stored = new TrajectoryImport(stores);
  const { counts } = stored;
  const progress = new Progress(output, 'imported', null);
  try {
    for await (const line of lines) {
      signal.throwIfAborted();
      await stored.add(atLine(file, line, () => readTrajectoryLine(line.text)));
      progress.update(counts.created + counts.known);
    }
    await stored.flush();
  } finally {
    progress.close();
  }
  await output.record({ object: 'import', file, kind: 'trajectories', ...counts });
  await output.text(
    `imported ${counts.created} trajectories and ${counts.feedback} feedback; ` +
      `${counts.known} trajectories were known before`,
  );
  const unknown = stored.unknownVersions;
  if (unknown.length > 0) {
    output.note(`this folder has no policy ${unknown.join(', ')}, which made some of them`);
  }
}

/** Tells the line of a mistake. */
function atLine<T>(file: string, { number }: Line, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    const { code, message } = toAppError(thrown);
    const where = `${file}: line ${number}: `;
    throw new AppError(code, where + message.replace(/^line 1: /, ''), { cause: thrown });
  }
}

async function* numbered(lines: AsyncIterable<string>): AsyncGenerator<Line> {
  let number = 0;
  for await (const text of lines) yield { number: ++number, text };
}

async function* withoutBlank(lines: AsyncIterable<Line>): AsyncGenerator<Line> {
  for await (const line of lines) if (line.text.trim() !== '') yield line;
}

async function* startingWith(line: Line, rest: AsyncIterable<Line>): AsyncGenerator<Line> {
  yield line;
  yield* rest;
}
