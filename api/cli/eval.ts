/**
 * `ramify eval`: how well a policy version answers held-out tasks, greedily and sampled, by family
 * and with intervals. Reads the data folder beside a running server and leaves no trace in it.
 */
import { evaluateTasks } from '../../core/arpo/evaluate.ts';
import { episodeLimits, parseSettings } from '../../core/arpo/settings.ts';
import { AppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { mix } from '../../core/prng.ts';
import type { Task, TaskSplit } from '../../core/records.ts';
import type { TaskStore } from '../../db/task-store.ts';
import { choice, EXIT, integer, number, readWords, SERVER_HELP } from './command.ts';
import type { Call, Command, Words } from './command.ts';
import { reading } from './data-folder.ts';
import { evalFigures, figuresText } from './eval-figures.ts';
import type { Answers, FamilyFigures, Outcome, WayFigures } from './eval-figures.ts';
import { Progress } from './output.ts';
import { chosenPolicy, withPolicy } from './policy-runtime.ts';
import type { PolicyRuntime } from './policy-runtime.ts';

const FLAGS = {
  version: { type: 'string' },
  split: { type: 'string' },
  family: { type: 'string', multiple: true },
  limit: { type: 'string' },
  mode: { type: 'string' },
  samples: { type: 'string' },
  temperature: { type: 'string' },
  seed: { type: 'string' },
  'max-tokens': { type: 'string' },
  'max-tool-calls': { type: 'string' },
} as const;

const HELP = `npx ramify eval [flags]: answers tasks with a policy version and scores the answers.
  --version N          of the policy (default: the live one)
  --split NAME         train, gate or test (default)
  --family NAME        only this family of tasks; may be repeated
  --limit N            at most so many tasks, spread evenly
  --mode NAME          greedy, sampled or both (default)
  --samples K          samples of a task: accuracy is their mean, pass@K the share of tasks that one
                       of them got right (default 1)
  --temperature X      of the samples (default 1)
  --seed N             key of the draws (default 1); equal seeds pair two versions
  --max-tokens N, --max-tool-calls N   of one answer (default as in training)
${SERVER_HELP}
Intervals are 95 %, by bootstrap over tasks.
Examples:
  npx ramify eval
  npx ramify eval --version 2 --split gate --samples 8 --json`;

interface EvalOptions {
  split: TaskSplit;
  families: readonly string[];
  tasksMax: number;
  greedy: boolean;
  /** 0: none. */
  samples: number;
  temperature: number;
  seed: number;
  limits: { maxTokens: number; maxToolCalls: number };
}

export const evalCommand: Command = {
  summary: 'accuracy of a version on held-out tasks, by family, with intervals',
  help: HELP,
  run: async (call) => {
    const { flags, config } = readWords(call, FLAGS);
    const options = readOptions(flags);
    const { output } = call;
    const logger = output.logger(config.logLevel);
    const { policy, tasks } = await reading(config, async (stores) => ({
      policy: chosenPolicy(stores.policies, flags.version),
      tasks: await chosenTasks(stores.tasks, options),
    }));
    const answers = await withPolicy({ policy, config, logger }, (runtime) =>
      answerTasks(call, runtime, tasks, options),
    );
    const figures = evalFigures(answers, options.seed);
    const { samples, split, temperature } = options;
    output.note(`version ${policy.version}, ${tasks.length} tasks of split ${split}`);
    await output.text(figuresText(figures, samples));
    const facts = { version: policy.version, split, samples, temperature };
    for (const row of figures) await output.record({ object: 'eval', ...facts, ...snake(row) });
    return EXIT.done;
  },
};

function readOptions(flags: Words<typeof FLAGS>['flags']): EvalOptions {
  const mode = choice('--mode', flags.mode ?? 'both', ['greedy', 'sampled', 'both']);
  for (const name of ['samples', 'temperature'] as const) {
    if (mode !== 'greedy' || flags[name] === undefined) continue;
    throw new AppError('invalid_request', `--${name}: nothing is sampled with --mode greedy`);
  }
  const { 'max-tokens': tokens, 'max-tool-calls': calls, limit } = flags;
  const defaults = episodeLimits(parseSettings('arpo'));
  return {
    split: choice('--split', flags.split ?? 'test', ['train', 'gate', 'test']),
    families: [...new Set(flags.family)],
    tasksMax: limit === undefined ? Infinity : integer('--limit', limit, 1, 1e6),
    greedy: mode !== 'sampled',
    samples: mode === 'greedy' ? 0 : integer('--samples', flags.samples ?? '1', 1, 1_000),
    temperature: number('--temperature', flags.temperature ?? '1', 0.01, 2),
    seed: integer('--seed', flags.seed ?? '1', 0, 2 ** 31 - 1),
    limits: {
      maxTokens:
        tokens === undefined ? defaults.maxTokens : integer('--max-tokens', tokens, 1, 65_536),
      maxToolCalls:
        calls === undefined
          ? defaults.maxToolCalls
          : integer('--max-tool-calls', calls, 0, LIMITS.toolCallsMax),
    },
  };
}

/** Throws invalid_request for a family that has no task there. */
export async function chosenTasks(
  store: TaskStore,
  { split, families, tasksMax }: Pick<EvalOptions, 'split' | 'families' | 'tasksMax'>,
): Promise<Task[]> {
  const filters =
    families.length === 0 ? [{ split }] : families.map((family) => ({ split, family }));
  const found = await Promise.all(filters.map((filter) => store.select(filter)));
  const missing = families.filter((_, i) => found[i]?.length === 0);
  const all = found.flat();
  if (missing.length > 0 || all.length === 0) {
    const of = missing.length === 0 ? '' : ` and family ${missing.join(', ')}`;
    throw new AppError('invalid_request', `no task of split ${split}${of} is stored`);
  }
  if (all.length <= tasksMax) return all;
  return Array.from(
    { length: tasksMax },
    (_, i) => all[Math.floor((i * all.length) / tasksMax)] as Task,
  );
}

async function answerTasks(
  { output, signal }: Call,
  { policy, sampler, context }: PolicyRuntime,
  tasks: readonly Task[],
  { greedy, samples, temperature, seed, limits }: EvalOptions,
): Promise<Answers> {
  const progress = new Progress(output, 'answers', tasks.length * (samples + Number(greedy)));
  let done = 0;
  const onAnswer = (): void => progress.update(++done);
  const shared = { sampler, context, tasks, version: policy.version, limits, runId: null };
  const answer = async (heat: number, key: number): Promise<Outcome[]> => {
    const keys = { temperature: heat, seed: key };
    const answered = await evaluateTasks({ ...shared, ...keys, onAnswer, signal });
    // Every token of every answer would be held otherwise.
    return answered.map(({ task, correct, formatOk, toolCalls }) => ({
      ...{ task, correct, formatOk, toolCalls },
    }));
  };
  try {
    const best = greedy ? await answer(0, seed) : null;
    const sampled: Outcome[][] = [];
    for (let k = 0; k < samples; k++)
      sampled.push(await answer(temperature, k === 0 ? seed : mix(seed, k)));
    return { greedy: best, sampled };
  } finally {
    progress.close();
  }
}

function snake({ family, tasks, greedy, sampled, passAtK }: FamilyFigures): object {
  const way = (figures: WayFigures | null): object | null =>
    figures === null
      ? null
      : {
          accuracy: figures.accuracy,
          format_errors: figures.formatErrors,
          tool_calls_per_task: figures.toolCallsPerTask,
        };
  return { family, tasks, greedy: way(greedy), sampled: way(sampled), pass_at_k: passAtK };
}
