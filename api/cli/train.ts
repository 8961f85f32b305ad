/**
 * `ramify train`: one training run on a data folder, made of the server's own parts: the same rows,
 * gate, candidate and decisions about it, with the machine to itself. It can be interrupted and
 * taken up like the server's runs, by this command or by the next start of the server.
 */
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { GateReport, TrainingRunRecord } from '../../core/records.ts';
import type { EventLog } from '../event-log.ts';
import { runCleanups, startParts } from '../parts.ts';
import type { Cleanup, Parts } from '../parts.ts';
import { DEFAULT_STEPS } from '../training-jobs.ts';
import type { RetrainRequest } from '../training-jobs.ts';
import type { TrainingManager } from '../training-manager.ts';
import type { TrainingEvent } from '../training-events.ts';
import { trainingRunView } from '../views.ts';
import { assignment, choice, EXIT, integer, readWords, SERVER_HELP } from './command.ts';
import type { Call, Command, Words } from './command.ts';
import { Progress } from './output.ts';
import type { Output } from './output.ts';
import { percent, table } from './text.ts';

const FLAGS = {
  algorithm: { type: 'string' },
  source: { type: 'string' },
  steps: { type: 'string' },
  seed: { type: 'string' },
  set: { type: 'string', multiple: true },
  resume: { type: 'boolean' },
} as const;

const HELP = `npx ramify train [flags]: trains the live policy of a data folder that no server uses.
  --algorithm NAME     arpo (default) or grpo
  --source NAME        tasks (default), live: conversations with a reward, or both
  --steps N            training steps (default ${DEFAULT_STEPS})
  --seed N             key of every random draw
  --set NAME=VALUE     a setting of docs/arpo.md, the value in JSON; may be repeated
  --resume             go on with the run that was interrupted here
${SERVER_HELP}
Ctrl-C stops in order; the run is kept and --resume, or the next start of the server, goes on with it.
Exit code 0: the candidate passed the gate; 3: the gate refused it.
Examples:
  npx ramify train --steps 50 --seed 1
  npx ramify train --algorithm grpo --set groupSize=8 --set learningRate=0.0001
  npx ramify train --resume --json`;

export const trainCommand: Command = {
  summary: 'trains the live policy; the better candidate goes live',
  help: HELP,
  run: async (call) => {
    const { flags, config } = readWords(call, FLAGS);
    const request = readRequest(flags);
    const logger = call.output.logger(config.logLevel);
    const cleanups: Cleanup[] = [];
    // Nothing is served here, and nothing but this run is to be trained.
    const alone = { ...config, schedule: { minNewScored: null, everyMinutes: null } };
    try {
      const parts = await startParts(alone, logger, cleanups);
      cleanups.push(() => parts.training.stop());
      call.signal.throwIfAborted();
      return await trainWith(call, parts, request);
    } finally {
      await runCleanups(cleanups, logger);
    }
  },
};

const SOURCES = ['tasks', 'live', 'both'] as const;

/** Null: a run that was interrupted. @throws AppError invalid_request */
function readRequest(flags: Words<typeof FLAGS>['flags']): RetrainRequest | null {
  const { algorithm, source, steps, seed, set = [], resume } = flags;
  if (resume === true) {
    const given = Object.keys(flags).find(
      (name) => Object.hasOwn(FLAGS, name) && name !== 'resume',
    );
    if (given === undefined) return null;
    const message = `--${given}: a run that is resumed has its settings already`;
    throw new AppError('invalid_request', message, { param: `--${given}` });
  }
  return {
    algorithm: choice('--algorithm', algorithm ?? 'arpo', ['arpo', 'grpo']),
    settings: Object.fromEntries(set.map((text) => assignment('--set', text))),
    ...(source !== undefined && { source: choice('--source', source, SOURCES) }),
    ...(steps !== undefined && { steps: integer('--steps', steps, 1, LIMITS.trainingStepsMax) }),
    ...(seed !== undefined && { seed: integer('--seed', seed, 0, Number.MAX_SAFE_INTEGER) }),
  };
}

async function trainWith(
  { output, signal }: Call,
  { stores, training }: Parts,
  request: RetrainRequest | null,
): Promise<number> {
  const ids = request === null ? await takenUp(stores, training) : [training.retrain(request).id];
  if (request !== null) tellOfOthers(output, stores, ids);
  const stop = (): void => {
    output.note('stopping; the run is kept');
    void training.stop();
  };
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop, { once: true });
  let code: number = EXIT.done;
  for (const id of ids) {
    const events = training.events(id);
    if (!Array.isArray(events)) await follow(output, events, stores.training.get(id));
    const run = stores.training.get(id);
    await output.record(trainingRunView(run));
    await output.text(endText(run));
    code = Math.max(code, exitCode(run));
  }
  // The end of the last run is written; its process may still be on its way out.
  await training.stop();
  return code;
}

async function takenUp(stores: Parts['stores'], training: TrainingManager): Promise<string[]> {
  const ids = stores.training.unfinished().map(({ id }) => id);
  if (ids.length === 0) {
    throw new AppError('invalid_request', '--resume: no run was interrupted here');
  }
  await training.start();
  return ids;
}

function tellOfOthers(output: Output, stores: Parts['stores'], ids: readonly string[]): void {
  for (const { id } of stores.training.unfinished()) {
    if (!ids.includes(id)) output.note(`${id} was interrupted; train --resume goes on with it`);
  }
}

async function follow(
  output: Output,
  events: EventLog<TrainingEvent>,
  { step: before, steps }: TrainingRunRecord,
): Promise<void> {
  const progress = new Progress(output, 'step', steps - before);
  // What happened before is known; the log ends by itself, also when the run is stopped.
  const unending = new AbortController().signal;
  const from = before > 0 ? events.lastId : 0;
  for await (const { event } of events.follow(from, unending)) {
    await output.record(event);
    if (event.type === 'step.completed') {
      progress.update(event.step - before, stepText(event.values), true);
    } else {
      const text = eventText(event);
      if (text !== null) output.note(text);
    }
  }
  progress.close();
}

function eventText(event: Exclude<TrainingEvent, { type: 'step.completed' }>): string | null {
  switch (event.type) {
    case 'run.created':
      return `training run ${event.run.id}: ${event.run.algorithm}, ${event.run.progress.steps} steps`;
    case 'run.started':
      return `answering the gate's tasks with version ${event.run.base_version ?? '?'}`;
    case 'policy.decided':
      return `version ${event.decision.version}: ${event.decision.kind.replaceAll('_', ' ')}`;
    case 'gate.completed':
    case 'run.completed':
    case 'run.failed':
      // Told whole at the end.
      return null;
  }
}

function stepText(values: Readonly<Record<string, number>>): string {
  const { reward_mean: reward, accuracy, tool_calls_executed: calls } = values;
  return [
    ...(reward === undefined ? [] : [`reward ${reward.toFixed(2)}`]),
    ...(accuracy === undefined ? [] : [`accuracy ${percent(accuracy)}`]),
    ...(calls === undefined ? [] : [`tool calls ${calls}`]),
  ].join('  ');
}

function endText(run: TrainingRunRecord): string {
  const { id, status, error, gate, candidateVersion } = run;
  const made = candidateVersion === null ? '' : `, version ${candidateVersion}`;
  const why = error === null ? '' : `: ${error}`;
  const hint = status === 'interrupted' ? '\nnpx ramify train --resume goes on with it' : '';
  const end = `training run ${id}: ${status}${made}${why}${hint}`;
  return gate === null ? end : [...gateLines(gate), end].join('\n');
}

function gateLines({ passed, reason, tasks, base, candidate }: GateReport): string[] {
  const rows = Object.entries(base).map(([family, before]) => {
    const after = candidate[family];
    const both = (text: (score: typeof before) => string): string =>
      `${text(before)} > ${after === undefined ? '?' : text(after)}`;
    return [
      family,
      String(before.tasks),
      both(({ accuracy }) => percent(accuracy)),
      both(({ formatErrors }) => percent(formatErrors)),
      both(({ toolCallsPerTask }) => toolCallsPerTask.toFixed(2)),
    ];
  });
  const head = ['family', 'tasks', 'accuracy', 'format errors', 'tool calls a task'];
  return [
    `gate ${passed ? 'passed' : 'refused'} on ${tasks} held-out tasks: ${reason}`,
    ...table(head, rows, true),
  ];
}

function exitCode({ status }: TrainingRunRecord): number {
  if (status === 'completed') return EXIT.done;
  if (status === 'rejected') return EXIT.refused;
  return status === 'failed' ? EXIT.failed : EXIT.interrupted;
}
