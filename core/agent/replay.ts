/**
 * Logged trajectories looked at again (ARCHITECTURE.md, principle 1). `scorePaths` gives the stored
 * tokens their log-probabilities under some weights and says how far they lie from those in the
 * log: next to nothing under the weights that sampled them, or the log would not be the truth.
 * `scoreSequence` does it for one path by the engine that serves, whose draws it forces to the
 * stored tokens, so that it shares batches, priorities and memory with everyone else. `resample`
 * goes on from a step of a path with new draws, by any version.
 *
 * What a tool answers in a resampled path is a choice. `recorded`: what the log has for the same
 * call, and an error for any other. `live`: the tool itself, if it is free of effects, else an
 * error. `deny`: always an error. Nothing outside is ever changed. Knows nothing of stores.
 */
import { assert, must } from '../assert.ts';
import { Cassette } from '../arpo/cassette.ts';
import { DEFAULT_ENTROPY } from '../arpo/entropy.ts';
import { scoreEpisode, throwIfAborted, turn } from '../arpo/task-episode.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type {
  Sampler,
  SampleResult,
  Sequence,
  ToolOutcome,
  ToolRunner,
  ToolSpec,
} from '../ports.ts';
import { DEFAULT_TENANT } from '../records.ts';
import type { StepRecord, Task, TrajectoryRecord } from '../records.ts';
import { Deadline } from './deadline.ts';
import { Episode } from './episode.ts';
import type { EpisodeContext, EpisodeLimits } from './types.ts';

/** ln p and entropy (nats) of every token of each row, 0 at index 0. */
export type ScoreRows = (
  rows: readonly Uint32Array[],
) => Promise<{ logprobs: Float32Array[]; entropies: Float32Array[] }>;

/** One policy step under other weights, or the same. */
export interface StepScore {
  stepId: string;
  /** ln p at temperature 1 over the full vocabulary, one a token. */
  logprobs: Float32Array;
  entropies: Float32Array;
}

export interface PathScore {
  steps: StepScore[];
  /** Policy tokens; the figures below are over them, and 0 where there is none. */
  tokens: number;
  /** Of |ln p now - ln p logged|. */
  maxDrift: number;
  meanDrift: number;
  meanLogprob: number;
  meanLoggedLogprob: number;
}

/** Scores paths, each from its root to its leaf, in the order given. */
export async function scorePaths(
  paths: readonly (readonly StepRecord[])[],
  score: ScoreRows,
): Promise<PathScore[]> {
  if (paths.length === 0) return [];
  const rows = paths.map((steps) => Uint32Array.from(steps.flatMap(({ tokens }) => [...tokens])));
  const scored = await score(rows);
  return paths.map((steps, i) =>
    pathScore(
      steps,
      must(scored.logprobs[i], 'logprobs of each row'),
      must(scored.entropies[i], 'entropies of each row'),
    ),
  );
}

/** Tokens forced by one sample request: compiling its constraint takes some milliseconds. */
const FORCED_TOKENS = 256;

/**
 * Scores one path on a sequence that holds nothing yet, and stays its owner's to close. Throws
 * request_cancelled, context_length_exceeded, invalid_request (a token that the version does not
 * have) and engine failures.
 */
export async function scoreSequence(
  sequence: Sequence,
  steps: readonly StepRecord[],
  options: { vocabulary: number; signal: AbortSignal },
): Promise<PathScore> {
  const count = steps.reduce((sum, { tokens }) => sum + tokens.length, 0);
  const logprobs = new Float32Array(count);
  const entropies = new Float32Array(count);
  let at = 0;
  for (const { kind, tokens, logprobs: logged } of steps) {
    const unknown = tokens.find((token) => token >= options.vocabulary);
    if (unknown !== undefined) {
      const message = `policy version ${sequence.policyVersion} has no token ${unknown}`;
      throw new AppError('invalid_request', message, { param: 'policy_version' });
    }
    const end = at + tokens.length;
    if (kind !== 'policy' || logged === null) {
      sequence.append(tokens);
      at = end;
    }
    while (at < end) {
      const piece = tokens.subarray(tokens.length - (end - at)).subarray(0, FORCED_TOKENS);
      const scored = await forced(sequence, piece, options.signal);
      logprobs.set(scored.logprobs, at);
      entropies.set(scored.entropies, at);
      at += piece.length;
    }
  }
  return pathScore(steps, logprobs, entropies);
}

async function forced(
  sequence: Sequence,
  tokens: Uint32Array,
  signal: AbortSignal,
): Promise<SampleResult> {
  const constraint = Array.from(tokens, (token) => ({ kind: 'token', anyOf: [token] }) as const);
  const result = await sequence.sample({
    maxTokens: tokens.length,
    sampling: { temperature: 1, topP: 1, topK: 0, seed: 0, constraint },
    stopTokens: [],
    signal,
  });
  if (signal.aborted) throw new AppError('request_cancelled', 'the replay was cancelled');
  if (result.finish === 'context' && result.tokens.length < tokens.length) {
    const message = `the path is longer than the window of version ${sequence.policyVersion}`;
    throw new AppError('context_length_exceeded', message);
  }
  assert(result.tokens.length === tokens.length, 'every forced token was sampled');
  return result;
}

function pathScore(
  steps: readonly StepRecord[],
  logprobs: Float32Array,
  entropies: Float32Array,
): PathScore {
  const scores: StepScore[] = [];
  let [at, tokens, sum, sumLogged, drift, maxDrift] = [0, 0, 0, 0, 0, 0];
  for (const step of steps) {
    const [from, to] = [at, at + step.tokens.length];
    at = to;
    if (step.kind !== 'policy' || step.logprobs === null) continue;
    const now = logprobs.slice(from, to);
    scores.push({ stepId: step.id, logprobs: now, entropies: entropies.slice(from, to) });
    step.logprobs.forEach((logged, i) => {
      const difference = Math.abs((now[i] as number) - logged);
      sum += now[i] as number;
      sumLogged += logged;
      drift += difference;
      maxDrift = Math.max(maxDrift, difference);
    });
    tokens += step.tokens.length;
  }
  const over = Math.max(1, tokens);
  return {
    steps: scores,
    tokens,
    maxDrift,
    meanDrift: drift / over,
    meanLogprob: sum / over,
    meanLoggedLogprob: sumLogged / over,
  };
}

export const REPLAY_TOOLS = ['recorded', 'live', 'deny'] as const;
export type ReplayTools = (typeof REPLAY_TOOLS)[number];

/**
 * Tools as a replay may use them. `logged` are steps with the calls that `recorded` knows; of equal
 * calls the last one answers.
 */
export function replayTools(
  tools: ToolRunner,
  mode: ReplayTools,
  logged: readonly StepRecord[],
): ToolRunner {
  if (mode === 'live') return new GuardedTools(tools, (spec) => spec.effects === 'none');
  const closed = new GuardedTools(tools, () => false);
  if (mode === 'deny') return closed;
  const cassette = new Cassette(closed);
  for (const { toolCall } of logged) {
    // A call that its client has not answered yet has nothing to repeat.
    if (toolCall === null || toolCall.result === null) continue;
    const { result, error, durationMs, effects } = toolCall;
    cassette.record(toolCall, { result, error, durationMs, effects, served: 'recorded' });
  }
  return cassette;
}

/** Lets calls through to tools that pass a test; the others are answered by an error. */
class GuardedTools implements ToolRunner {
  private readonly tools: ToolRunner;
  private readonly allows: (spec: ToolSpec) => boolean;

  constructor(tools: ToolRunner, allows: (spec: ToolSpec) => boolean) {
    this.tools = tools;
    this.allows = allows;
  }

  /** A tool of the log may not exist here any more: its recorded results do. */
  has(): boolean {
    return true;
  }

  specs(names: readonly string[]): ToolSpec[] {
    return names.map((name) => this.spec(name));
  }

  async call(name: string, argumentsJson: string, signal?: AbortSignal): Promise<ToolOutcome> {
    const spec = this.spec(name);
    if (this.tools.has(name) && this.allows(spec)) {
      return this.tools.call(name, argumentsJson, signal);
    }
    const result = `error: ${name} is not run in this replay, and the log has no such call`;
    const { effects = 'none' } = spec;
    return { result, error: 'tool_failed', durationMs: 0, effects, served: 'recorded' };
  }

  private spec(name: string): ToolSpec {
    const known = this.tools.has(name) ? this.tools.specs([name])[0] : undefined;
    return known ?? { name, description: 'A tool of the log.', parameters: { type: 'object' } };
  }
}

/**
 * The steps before new draws: for a policy step those before it, for a prompt or a tool step those
 * up to it and to the last result that follows it at once.
 */
export function stepsBefore(steps: readonly StepRecord[], index: number): StepRecord[] {
  const step = steps[index];
  assert(step !== undefined, `a path of ${steps.length} steps has no step ${index}`);
  if (step.kind === 'policy') return steps.slice(0, index);
  const next = steps.findIndex(({ kind }, i) => i > index && kind === 'policy');
  return steps.slice(0, next === -1 ? steps.length : next);
}

export interface ResampleOptions {
  sampler: Sampler;
  /** `tools` as `replayTools` gives them. */
  context: EpisodeContext;
  version: number;
  /** From the root to a prompt or tool step; see `stepsBefore`. */
  prefix: readonly StepRecord[];
  /** Over the whole path, the prefix included. */
  limits: EpisodeLimits;
  /** Names that the policy may call. */
  offered: ReadonlySet<string>;
  temperature: number;
  /** Key of the draws: (seed, sample). */
  key: readonly [number, number];
  /** Scores the answer; without it there is no reward. */
  task: Task | null;
  signal?: AbortSignal;
}

export interface ResampledPath {
  record: TrajectoryRecord;
  /** From the root to the new leaf. */
  steps: StepRecord[];
  /** Those that the log does not have. */
  newSteps: StepRecord[];
  /** Answered right in full; null without a task. */
  correct: boolean | null;
}

/** Draws one new path. Throws request_cancelled, context_length_exceeded and engine failures. */
export async function resample(options: ResampleOptions): Promise<ResampledPath> {
  const { sampler, context, version, prefix, limits, offered, temperature, key, task } = options;
  const deadline = new Deadline(options.signal, LIMITS.rolloutTimeoutMs);
  const sequence = sampler.open({ policyVersion: version, priority: 'evaluation' });
  try {
    const continuation = { steps: prefix, answered: [], furtherMessages: false, tokens: [] };
    const episode = Episode.resume({
      context,
      sequence,
      continuation,
      limits,
      entropy: DEFAULT_ENTROPY,
    });
    // Each turn ends the episode or uses up tool calls, which are bounded.
    while (episode.endReason === null) {
      const draws = { key: [...key, 0] as const, temperature, offered, signal: deadline.signal };
      await turn(episode, draws);
    }
    throwIfAborted(deadline, 'replay');
    return { ...judged(episode, prefix, task), newSteps: episode.newSteps };
  } finally {
    sequence.close();
    deadline.close();
  }
}

function judged(
  episode: Episode,
  prefix: readonly StepRecord[],
  task: Task | null,
): Omit<ResampledPath, 'newSteps'> {
  const meta = {
    source: 'replay' as const,
    trainingRunId: null,
    groupId: null,
    branchedFromStepId: prefix.at(-1)?.id ?? null,
  };
  if (task !== null) return scoreEpisode(episode, task, MULTI_TOOL_BONUS, meta);
  const place = { tenant: DEFAULT_TENANT, taskId: null, conversationId: null };
  const unscored = { ...meta, ...place, reward: null };
  return { record: episode.toRecord(unscored), steps: episode.steps, correct: null };
}

/** As in training by default, so that rewards compare. */
const MULTI_TOOL_BONUS = 0.1;
