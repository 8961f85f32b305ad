/**
 * Rebuilt groups (arpo.md section 3.6): a group that begins with logged conversations of a question
 * as finished roots, up to a quarter of it, and with forks of them, up to a quarter of the rest, at
 * the logged tool results behind which the policy of now is unsure (largest dH). From there it
 * grows by the run's branch rule, which forks from logged results too. A fork reads the recorded
 * results of its prefix, and a call that the log has is answered from there: only new ones run a
 * tool. Plain GRPO (`none`) forks nowhere.
 *
 * Logged tokens were sampled by other weights: `rescored` has their log-probabilities under those
 * of now, and the step itself says what the behaviour was. Rewards of all come from the question's
 * rated answers. Knows nothing of databases: what is stored already is `given`.
 */
import { Deadline } from '../agent/deadline.ts';
import { Episode } from '../agent/episode.ts';
import type { EpisodeContext } from '../agent/types.ts';
import { must } from '../assert.ts';
import { LIMITS } from '../limits.ts';
import type { LiveSample } from '../records.ts';
import { isPassing } from './cassette.ts';
import { mapBounded } from './concurrency.ts';
import {
  sampleGroup,
  type GroupStart,
  type RecordedCall,
  type TrajectoryPlace,
} from './group-rollout.ts';
import type { LiveQuestion } from './live-questions.ts';
import { rescorePaths, type RescoredPath, type ScoreRows } from './rescored-path.ts';
import type { RolloutGroup } from './rollout-group.ts';
import type { RolloutOptions } from './rollout.ts';
import { entropySettings, episodeLimits, type ArpoSettings } from './settings.ts';
import { beginTask, scoreEpisode, type ScoredTrajectory } from './task-episode.ts';

export interface RebuildOptions extends Omit<RolloutOptions, 'tasks' | 'source' | 'evaluation'> {
  score: ScoreRows;
}

/** One group a question. Throws like rolloutGroups; every sequence is closed. */
export async function rebuiltGroups(
  questions: readonly LiveQuestion[],
  options: RebuildOptions,
): Promise<RolloutGroup[]> {
  const { settings, score, context } = options;
  const { vocabularySize } = context.tokenizer;
  const logged = questions.map((question) =>
    question.logged.slice(0, Math.floor(settings.groupSize / 4)),
  );
  const paths = await rescorePaths(
    logged.flat().map(({ steps }) => steps),
    { score, vocabularySize, entropy: entropySettings(settings) },
  );
  const pathOf = new Map(logged.flat().map((sample, i) => [sample, must(paths[i], 'its path')]));
  const deadline = new Deadline(options.signal, LIMITS.rolloutTimeoutMs);
  try {
    return await mapBounded(
      questions,
      // One sequence a trajectory and one for the prompt; all may wait in the engine's queue.
      Math.max(1, Math.floor(LIMITS.sampleQueueMax / (settings.groupSize + 1))),
      (question, index) => {
        const given = must(logged[index], 'conversations of each question').map((sample) => ({
          sample,
          path: must(pathOf.get(sample), 'every conversation was scored'),
        }));
        return rebuildGroup({ question, given }, options, { index, deadline });
      },
      deadline.fail,
    );
  } finally {
    deadline.close();
  }
}

interface Given {
  sample: LiveSample;
  path: RescoredPath;
}

async function rebuildGroup(
  { question, given }: { question: LiveQuestion; given: readonly Given[] },
  options: RebuildOptions,
  place: { index: number; deadline: Deadline },
): Promise<RolloutGroup> {
  const { task } = question;
  const { context, settings, seed } = options;
  const loggedOf = new Map<Episode, LiveSample>();
  const rescored = new Map(given.flatMap(({ path }) => [...path.logprobs]));
  const begin = (groupContext: EpisodeContext): GroupStart => {
    const roots = given.map(({ sample, path }) => {
      const episode = finishedEpisode(sample, path, { ...options, context: groupContext });
      loggedOf.set(episode, sample);
      return episode;
    });
    const [first] = roots;
    if (first !== undefined) {
      const forks = widestForks(given, settings);
      return { prompt: { episode: first, at: 0 }, roots, forks, rescored };
    }
    const prompt = beginTask({
      ...options,
      context: groupContext,
      task,
      priority: 'rollout',
      limits: episodeLimits(settings),
      entropy: entropySettings(settings),
    });
    return { prompt: { episode: prompt, at: 0 } };
  };
  const score = (episode: Episode, placed: TrajectoryPlace): ScoredTrajectory => {
    const logged = loggedOf.get(episode);
    return logged === undefined
      ? scoreRollout(question, episode, placed, options.runId)
      : scoreLogged(question, episode, logged);
  };
  const group = await sampleGroup({
    ...{ context, settings, task, seed, begin, score, ...place },
    offered: new Set(task.tools),
    recorded: recordedCalls(given),
  });
  return { ...group, rescored };
}

/** What the log has of calls that another try would not mend; the newest conversation last. */
function recordedCalls(given: readonly Given[]): RecordedCall[] {
  const steps = [...given].reverse().flatMap(({ sample }) => sample.steps);
  return steps.flatMap(({ toolCall }) => {
    if (toolCall === null || toolCall.result === null || isPassing(toolCall)) return [];
    const { result, error, durationMs, effects } = toolCall;
    const outcome = { result, error, durationMs, effects, served: 'recorded' } as const;
    return [{ call: toolCall, outcome }];
  });
}

/** Where the policy of now is least sure after a logged result; of equals the first. */
function widestForks(
  given: readonly Given[],
  { branch, groupSize }: ArpoSettings,
): { root: number; at: number }[] {
  if (branch === 'none') return [];
  return given
    .flatMap(({ path }, root) => path.points.map((point) => ({ ...point, root })))
    .sort((a, b) => b.deltaEntropy - a.deltaEntropy)
    .slice(0, Math.floor((groupSize - given.length) / 4));
}

/** A logged conversation as a root that has ended, over a sequence that holds its tokens. */
function finishedEpisode(
  { trajectory }: LiveSample,
  { steps }: RescoredPath,
  { sampler, context, version, settings }: RebuildOptions,
): Episode {
  const sequence = sampler.open({ policyVersion: version, priority: 'rollout' });
  try {
    const episode = Episode.resume({
      context,
      sequence,
      continuation: { steps, answered: [], furtherMessages: false, tokens: [] },
      limits: episodeLimits(settings),
      entropy: entropySettings(settings),
    });
    episode.answer = trajectory.answer;
    episode.end(trajectory.endReason);
    return episode;
  } catch (error) {
    sequence.close();
    throw error;
  }
}

function scoreRollout(
  question: LiveQuestion,
  episode: Episode,
  { groupId, branchedFromStepId }: TrajectoryPlace,
  trainingRunId: string | null,
): ScoredTrajectory {
  const place = { source: 'rollout', trainingRunId, groupId, branchedFromStepId } as const;
  const scored = scoreEpisode(episode, question.task, 0, place);
  const judgement = judged(question, scored);
  return { ...scored, ...judgement, record: { ...scored.record, reward: judgement.reward } };
}

/** Its record stays: what its client said is not what the question's ratings make of it. */
function scoreLogged(
  question: LiveQuestion,
  { steps }: Episode,
  { trajectory }: LiveSample,
): ScoredTrajectory {
  const { answer, formatOk, endReason } = trajectory;
  const formatError = formatOk ? null : `logged as malformed, ended by ${endReason}`;
  const judgement = judged(question, { answer, formatError });
  return { ...judgement, steps, record: trajectory, formatError, answer };
}

const judged = (
  { answers }: LiveQuestion,
  outcome: Pick<ScoredTrajectory, 'answer' | 'formatError'>,
) => must(answers.judge(outcome), 'where an answer is liked, every other one is judged');
