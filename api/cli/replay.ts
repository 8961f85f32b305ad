/**
 * `ramify replay`: logged trajectories looked at again (core/agent/replay.ts). `score`, the
 * default, gives their tokens log-probabilities under a version and says how far those are from
 * the log; `resample` draws new paths from one of their steps. Reads the data folder beside a
 * running server; only `--save` writes, and needs the folder for itself.
 */
import { systemClock } from '../../core/clock.ts';
import { AppError } from '../../core/errors.ts';
import { REPLAY_TOOLS } from '../../core/agent/replay.ts';
import { choice, EXIT, integer, readWords, SERVER_HELP } from './command.ts';
import type { Command, Words } from './command.ts';
import { reading } from './data-folder.ts';
import { resampleTrajectory } from './replay-resample.ts';
import { scoreTrajectories } from './replay-score.ts';
import { FILTER_FLAGS, FILTER_HELP, readFilter } from './trajectory-flags.ts';

const SCORE_FLAGS = { ...FILTER_FLAGS, tokens: { type: 'boolean' } } as const;
const RESAMPLE_FLAGS = {
  step: { type: 'string' },
  tools: { type: 'string' },
  offer: { type: 'string', multiple: true },
  samples: { type: 'string' },
  temperature: { type: 'string' },
  seed: { type: 'string' },
  'max-tokens': { type: 'string' },
  'max-tool-calls': { type: 'string' },
  save: { type: 'boolean' },
} as const;
const FLAGS = {
  ...SCORE_FLAGS,
  ...RESAMPLE_FLAGS,
  mode: { type: 'string' },
  under: { type: 'string' },
  limit: { type: 'string' },
} as const;

export type ReplayFlags = Words<typeof FLAGS>['flags'];

const HELP = `npx ramify replay [ID] [flags]: logged trajectories under the weights of a version.
  ID                   one trajectory; without it, all that fit the filters, oldest first
  --mode score         (default) ln p of the stored tokens, and its drift from the log
  --mode resample      new draws from a step of trajectory ID
  --under N            the version (default: the one that made each of them)
 score:
${FILTER_HELP}
  --limit N            at most so many
  --tokens             with --json: ln p and entropy of every sampled token
 resample:
  --step N             from this step on; a policy step is drawn anew (default: the first one)
  --tools NAME         ${REPLAY_TOOLS.join(', ')}: what the log has for the same call and an error
                       for others (default); run if free of effects; always an error
  --offer NAME         a tool that may be called; may be repeated (default: those of the task, and
                       those that were called)
  --samples N, --temperature X, --seed N, --max-tokens N, --max-tool-calls N
  --save               keep the new paths in the log, as source replay
${SERVER_HELP}
Rollouts of training were sampled by weights between two versions: their drift is what training
had moved until then.
Examples:
  npx ramify replay --source live
  npx ramify replay --under 2 --since 24h --json
  npx ramify replay traj_... --mode resample --step 1 --samples 8 --tools live`;

export const replayCommand: Command = {
  summary: 'scores logged trajectories under a version, or samples anew from a step',
  help: HELP,
  run: async (call) => {
    const { flags, rest, config } = readWords(call, FLAGS, 1);
    const mode = choice('--mode', flags.mode ?? 'score', ['score', 'resample']);
    refuseOthers(flags, mode);
    const under =
      flags.under === undefined ? null : integer('--under', flags.under, 1, 999_999_999);
    const [id] = rest;
    if (mode === 'score') {
      const filter = readFilter(flags, systemClock.now());
      if (id !== undefined && Object.keys(filter).length > 0) {
        throw new AppError('invalid_request', `${id}: filters choose among all, not one`);
      }
      const max = flags.limit === undefined ? Infinity : integer('--limit', flags.limit, 1, 1e9);
      const what = { id: id ?? null, filter, max, under, tokens: flags.tokens === true };
      await reading(config, (stores) => scoreTrajectories(call, { stores, config }, what));
    } else {
      if (id === undefined) throw new AppError('invalid_request', 'resample needs the ID of one');
      await resampleTrajectory(call, config, { id, under, flags });
    }
    return EXIT.done;
  },
};

/** A flag of the other mode would do nothing. */
function refuseOthers(flags: ReplayFlags, mode: 'score' | 'resample'): void {
  const others = mode === 'score' ? RESAMPLE_FLAGS : { ...SCORE_FLAGS, limit: null };
  const found = Object.keys(others).find((name) => Object.hasOwn(flags, name));
  if (found === undefined) return;
  throw new AppError('invalid_request', `--${found} does nothing with --mode ${mode}`);
}
