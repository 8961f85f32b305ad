/**
 * One trajectory in the making (arpo.md section 1): prompt, then policy steps and tool steps in
 * turn. Live agents and training rollouts both drive this class, so what is logged, replayed and
 * trained on has one origin. The tokens of the steps, joined, are always exactly the tokens that
 * the KV sequence holds: what was sampled is stored, nothing is encoded again, and a trajectory
 * that a limit cuts gets no invented end token.
 *
 * A malformed call is never run: the trajectory ends with `stop` and a format error. A tool that
 * fails or is too slow is no end: the policy reads the error as the result. It does not know where
 * tokens come from, what is a good answer, or which calls a client runs.
 */
import { assert, must } from '../assert.ts';
import { AppError } from '../errors.ts';
import { DEFAULT_ENTROPY, measuredEntropies, stepEntropy } from '../arpo/entropy.ts';
import type { EntropySettings } from '../arpo/entropy.ts';
import type { LogBatch, SampledTokens, SampleResult, Sequence } from '../ports.ts';
import { drawsFullDistribution } from '../sampling.ts';
import type {
  Constraint,
  EndReason,
  SamplingParams,
  StepKind,
  StepRecord,
  ToolCallRecord,
  TrajectoryRecord,
} from '../records.ts';
import type { AnswerForm, ParsedStep, ToolCallRequest } from '../text/types.ts';
import { storedTurn } from './stored-turn.ts';
import type { Continuation, EpisodeContext, EpisodeLimits } from './types.ts';

export interface PolicyStepRequest {
  sampling: SamplingParams;
  /** Texts that end the step. */
  stopTexts?: readonly string[];
  likeliest?: number;
  signal?: AbortSignal;
  onTokens?: (piece: SampledTokens) => void;
}

export interface ToolStepRequest {
  /** Names that may be called; a call of another one is answered with an unknown_tool text. */
  offered: ReadonlySet<string>;
  /** Names whose calls are run elsewhere: they stay pending until `takeResults`. */
  elsewhere?: ReadonlySet<string>;
  signal?: AbortSignal;
}

/** Facts of the trajectory's record that the loop itself does not know. */
export type TrajectoryMeta = Pick<
  TrajectoryRecord,
  | 'tenant'
  | 'source'
  | 'conversationId'
  | 'taskId'
  | 'trainingRunId'
  | 'groupId'
  | 'branchedFromStepId'
> & { reward: number | null; id?: string };

interface EpisodeState {
  context: EpisodeContext;
  sequence: Sequence;
  limits: EpisodeLimits;
  entropy: EntropySettings;
  steps: StepRecord[];
  /** How many of the steps the log has already. */
  stored?: number;
}

export class Episode {
  /**
   * The path from the prompt to the newest step. Forks share the records of their common prefix.
   */
  readonly steps: StepRecord[];
  readonly sequence: Sequence;
  readonly limits: EpisodeLimits;
  /** Calls of the newest policy step, in its order; each has an id. */
  calls: readonly ToolCallRequest[] = [];
  /** Those of them that have no result yet. */
  pendingCalls: ToolCallRequest[] = [];
  endReason: EndReason | null = null;
  answer: string | null = null;
  /** Why the last step, which came to its own end, could not be understood; else null. */
  malformed: string | null = null;
  /** Tool calls answered on this path. */
  toolCalls: number;
  /** Policy tokens on this path. */
  sampledTokens: number;
  /** Context tokens that were cached before the first sample of this episode. */
  cachedTokens: number | null = null;
  private readonly context: EpisodeContext;
  private readonly entropy: EntropySettings;
  private readonly stored: number;
  /** Results of `calls` so far. */
  private results: ToolCallRecord[] = [];

  private constructor(state: EpisodeState) {
    this.context = state.context;
    this.sequence = state.sequence;
    this.limits = state.limits;
    this.entropy = state.entropy;
    this.steps = state.steps;
    this.stored = state.stored ?? 0;
    this.toolCalls = state.steps.filter((step) => step.kind === 'tool').length;
    this.sampledTokens = policyTokens(state.steps);
  }

  /**
   * Starts a trajectory on an empty sequence, which it owns from now on. Throws
   * context_length_exceeded when the prompt does not fit.
   */
  static begin(options: {
    context: EpisodeContext;
    sequence: Sequence;
    promptTokens: readonly number[] | Uint32Array;
    limits: EpisodeLimits;
    entropy?: EntropySettings;
  }): Episode {
    const { context, sequence, promptTokens, limits, entropy = DEFAULT_ENTROPY } = options;
    assert(sequence.length === 0, `an episode starts on an empty sequence, not ${sequence.length}`);
    sequence.append(promptTokens);
    const episode = new Episode({ context, sequence, limits, entropy, steps: [] });
    const text = context.tokenizer.decode(promptTokens);
    const tokens = Uint32Array.from(promptTokens);
    episode.addStep('prompt', { tokens, text, startedAt: context.clock.now() });
    return episode;
  }

  /**
   * Goes on from a path of the log, on an empty sequence of the policy version that sampled it: the
   * stored tokens as they are, then the new context tokens (no token is encoded again). The
   * answered calls become tool steps; what follows them becomes a further prompt step. Throws
   * context_length_exceeded when the whole does not fit.
   */
  static resume(options: {
    context: EpisodeContext;
    sequence: Sequence;
    continuation: Continuation;
    limits: EpisodeLimits;
    entropy?: EntropySettings;
  }): Episode {
    const { context, sequence, continuation, limits, entropy = DEFAULT_ENTROPY } = options;
    const { steps, answered } = continuation;
    const tokens = Uint32Array.from(continuation.tokens);
    assert(sequence.length === 0, `an episode resumes on an empty sequence: ${sequence.length}`);
    for (const held of [...steps.map((step) => step.tokens), tokens]) sequence.append(held);
    const stored = steps.length;
    const episode = new Episode({ context, sequence, limits, entropy, steps: [...steps], stored });
    episode.addContextSteps([...answered, ...(continuation.furtherMessages ? [null] : [])], {
      tokens,
      startedAt: context.clock.now(),
    });
    episode.toolCalls += answered.length;
    return episode;
  }

  /**
   * Stands again where a path stopped whose steps are all stored, as if nothing had happened since;
   * on an empty sequence of its policy version. `calls` are those of its last policy step where
   * their ids were told to someone. Throws context_length_exceeded.
   */
  static restore(options: {
    context: EpisodeContext;
    sequence: Sequence;
    steps: readonly StepRecord[];
    calls?: readonly ToolCallRequest[];
    limits: EpisodeLimits;
    entropy?: EntropySettings;
  }): Episode {
    const { context, sequence, steps, calls = [], limits, entropy = DEFAULT_ENTROPY } = options;
    assert(sequence.length === 0, `an episode is restored on an empty sequence`);
    for (const { tokens } of steps) sequence.append(tokens);
    const episode = new Episode({ context, sequence, limits, entropy, steps: [...steps] });
    episode.readAgain(calls);
    return episode;
  }

  /** The steps that the log does not have yet. */
  get newSteps(): StepRecord[] {
    return this.steps.slice(this.stored);
  }

  /** H of the first policy step of the path, or null before one; a fork inherits it. */
  get initialEntropy(): number | null {
    return this.steps.find((step) => step.kind === 'policy')?.stepEntropy ?? null;
  }

  /** True when the path was cut before its own end: by a limit, a cancellation or a failure. */
  get isCut(): boolean {
    return this.endReason !== 'answer' && this.endReason !== 'stop';
  }

  /** The constraint by which the next policy step has this form. */
  constraintOf(form: AnswerForm): Constraint {
    return this.context.protocol.constrain(form, this.leaf.text);
  }

  get leaf(): StepRecord {
    const leaf = this.steps.at(-1);
    assert(leaf !== undefined, 'an episode has its prompt step');
    return leaf;
  }

  /**
   * Samples until a stop token of the protocol or a limit, and reads the result: calls become
   * `pendingCalls`, anything else ends the episode. Returns the new step, or null when not one
   * token was sampled (window full, cancelled). Engine failures are thrown and leave the episode as
   * it was.
   */
  async policyStep(request: PolicyStepRequest): Promise<StepRecord | null> {
    assert(this.endReason === null && this.pendingCalls.length === 0, 'a policy step has its turn');
    const budget = this.limits.maxTokens - this.sampledTokens;
    if (budget <= 0) return this.end('max_tokens');
    const startedAt = this.context.clock.now();
    const result = await this.sequence.sample({
      maxTokens: budget,
      sampling: request.sampling,
      stopTokens: this.context.protocol.stopTokens,
      ...(request.stopTexts && { stopTexts: request.stopTexts }),
      ...(request.likeliest !== undefined && { likeliest: request.likeliest }),
      ...(request.signal && { signal: request.signal }),
      ...(request.onTokens && { onTokens: request.onTokens }),
    });
    this.cachedTokens ??= result.cachedTokens ?? 0;
    const step =
      result.tokens.length === 0 ? null : this.addPolicyStep(result, request.sampling, startedAt);
    if (result.finish === 'cancelled') this.end('cancelled');
    else if (step !== null) this.understand(this.context.protocol.parseStep(step.text), result);
    else this.end(result.finish === 'context' ? 'context' : 'max_tokens');
    return step;
  }

  /**
   * Runs the pending calls, at once, and appends their results as context tokens. One tool step a
   * call; with several calls the last step holds the tokens of all results, because a protocol may
   * wrap them together. Ends the episode instead when a limit leaves no use for the results.
   * Results that overflow the window are recorded without tokens. Calls that are run elsewhere stay
   * pending, and the results of the others get their tokens with theirs. Returns the new steps.
   */
  async toolStep(request: ToolStepRequest): Promise<StepRecord[]> {
    const pending = this.pendingCalls.map((call) => this.withId(call));
    if (this.results.length === 0) this.calls = pending;
    assert(this.endReason === null && pending.length > 0, 'a tool step has calls to run');
    const overLimit = this.limitBeforeTools(pending.length);
    if (overLimit !== null) {
      this.end(overLimit);
      return [];
    }
    const startedAt = this.context.clock.now();
    const isElsewhere = ({ name }: ToolCallRequest): boolean =>
      request.elsewhere?.has(name) === true;
    const calls = pending.filter((call) => !isElsewhere(call));
    const records = await Promise.all(calls.map((call) => this.runCall(call, request)));
    this.pendingCalls = pending.filter(isElsewhere);
    const steps = this.addToolSteps(records, startedAt);
    if (this.endReason === null && request.signal?.aborted) this.end('cancelled');
    return steps;
  }

  /** Appends the results of all pending calls, which were run elsewhere. Returns the new steps. */
  takeResults(records: readonly ToolCallRecord[]): StepRecord[] {
    const given = new Set(records.map(({ id }) => id));
    const fits = this.pendingCalls.every(({ id }) => given.has(id ?? ''));
    assert(fits && records.length === this.pendingCalls.length, 'each pending call has a result');
    this.pendingCalls = [];
    return this.addToolSteps(records, this.context.clock.now());
  }

  /**
   * A second trajectory that shares this one's steps up to and including `stepIndex` (the prompt or
   * a tool step) and a fork of its KV sequence. This episode may have gone on, or ended, meanwhile.
   */
  fork(stepIndex: number): Episode {
    const steps = this.steps.slice(0, stepIndex + 1);
    const last = steps.at(-1);
    assert(steps.length === stepIndex + 1 && last !== undefined, `no step ${stepIndex} to fork at`);
    assert(last.kind !== 'policy', 'a fork starts where the policy writes: after context tokens');
    const next = this.steps[stepIndex + 1];
    assert(next === undefined || next.kind === 'policy', 'a fork starts after the last result');
    const length = steps.reduce((sum, step) => sum + step.tokens.length, 0);
    const sequence = this.sequence.fork(length);
    const { context, limits, entropy } = this;
    const stored = Math.min(this.stored, steps.length);
    return new Episode({ context, sequence, limits, entropy, steps, stored });
  }

  /**
   * Ends the episode, once; a second reason is ignored. Returns null, for brevity at call sites.
   */
  end(reason: EndReason): null {
    this.endReason ??= reason;
    return null;
  }

  /** Frees the KV sequence. Safe to call twice. */
  close(): void {
    this.sequence.close();
  }

  /**
   * Why the whole path is not a well-formed answer; null when it is, or when it waits for a client.
   */
  formatError(): string | null {
    if (this.malformed !== null) return this.malformed;
    if (this.endReason === 'tool_calls') return null;
    if (this.isCut) return `no answer: ended by ${this.endReason ?? 'nothing yet'}`;
    // A conversation may have several questions; each had its answer before the next was asked.
    const question = this.steps.findLastIndex((step) => step.kind === 'prompt');
    const steps = this.steps.slice(question).filter((step) => step.kind === 'policy');
    return this.context.protocol.formatError(steps.map((step) => step.text));
  }

  /** The trajectory's record. The episode must have ended. */
  toRecord(meta: TrajectoryMeta): TrajectoryRecord {
    assert(this.endReason !== null, 'only an ended episode becomes a record');
    const { endReason } = this;
    return {
      id: this.context.newId('trajectory'),
      ...meta,
      leafStepId: this.leaf.id,
      policyVersion: this.sequence.policyVersion,
      status: endReason === 'cancelled' || endReason === 'failed' ? endReason : 'completed',
      endReason,
      answer: this.answer,
      formatOk: this.formatError() === null,
      toolCalls: this.toolCalls,
      sampledTokens: this.sampledTokens,
      createdAt: this.steps[this.stored]?.startedAt ?? this.context.clock.now(),
    };
  }

  /** What to write to the log: the steps that it does not have, and the record. */
  toLog(meta: TrajectoryMeta): LogBatch & { trajectories: [TrajectoryRecord] } {
    return { steps: this.newSteps, trajectories: [this.toRecord(meta)] };
  }

  private addPolicyStep(
    result: SampleResult,
    sampling: SamplingParams,
    startedAt: number,
  ): StepRecord {
    const plain = drawsFullDistribution(sampling);
    const { vocabularySize } = this.context.tokenizer;
    const measured = measuredEntropies(result, this.entropy.mode);
    const entropy = stepEntropy(measured, vocabularySize, this.entropy);
    const initial = this.initialEntropy ?? entropy;
    this.sampledTokens += result.tokens.length;
    return this.addStep('policy', {
      tokens: result.tokens,
      logprobs: result.logprobs,
      behaviourLogprobs: plain ? null : result.behaviourLogprobs,
      entropies: result.entropies,
      sampling,
      stepEntropy: entropy,
      deltaEntropy: entropy === null || initial === null ? null : entropy - initial,
      text: this.context.tokenizer.decode(result.tokens),
      startedAt,
    });
  }

  /** Decides what follows a policy step. Only a step that reached a stop token can be an answer. */
  private understand(parsed: ParsedStep, result: Pick<SampleResult, 'finish'>): void {
    const whole = result.finish === 'stop';
    if (parsed.malformed !== null) {
      // A cut step is mostly malformed too, but the limit is what ended it.
      if (whole) this.malformed = parsed.malformed;
      this.end(whole ? 'stop' : cutReason(result));
    } else if (parsed.calls.length > 0 && result.finish !== 'context') {
      // A whole call counts even if the token budget ended right after it: a client can run it.
      // Its id is made here, so that it is the same towards the client and in the log.
      this.calls = parsed.calls.map((call) => this.withId(call));
      this.pendingCalls = [...this.calls];
      this.results = [];
    } else if (!whole) {
      this.end(cutReason(result));
    } else {
      this.answer = parsed.answer;
      this.end(parsed.answer === null ? 'stop' : 'answer');
    }
  }

  /** What the last policy step of a stored path means, and which of its calls were answered. */
  private readAgain(told: readonly ToolCallRequest[]): void {
    const { protocol } = this.context;
    const turn = storedTurn(protocol, this.steps, told);
    if (turn === null) return;
    const cut = this.sampledTokens >= this.limits.maxTokens ? 'length' : 'context';
    this.understand(turn.parsed, { finish: turn.stopped ? 'stop' : cut });
    this.results = turn.results;
    const answered = new Set(turn.results.map(({ id }) => id));
    this.pendingCalls = this.calls.filter(({ id }) => !answered.has(id ?? ''));
    // Results that overflowed the window were recorded without tokens.
    if (this.pendingCalls.length === 0 && this.leaf.tokens.length === 0) this.end('context');
  }

  private withId(call: ToolCallRequest): ToolCallRequest & { id: string } {
    return { ...call, id: call.id ?? this.context.newId('toolCall') };
  }

  private limitBeforeTools(calls: number): EndReason | null {
    if (this.toolCalls + calls > this.limits.maxToolCalls) return 'max_tool_calls';
    return this.sampledTokens >= this.limits.maxTokens ? 'max_tokens' : null;
  }

  private async runCall(call: ToolCallRequest, request: ToolStepRequest): Promise<ToolCallRecord> {
    const { name } = call;
    const id = call.id ?? this.context.newId('toolCall');
    const base = { id, name, arguments: call.arguments };
    if (!request.offered.has(name) || !this.context.tools.has(name)) {
      const offered = [...request.offered].join(', ') || 'none';
      return {
        ...base,
        result: `error: unknown tool '${name}'; offered: ${offered}`,
        error: 'unknown_tool',
        durationMs: 0,
        effects: 'none',
        served: 'live',
      };
    }
    return { ...base, ...(await this.context.tools.call(name, call.arguments, request.signal)) };
  }

  private addToolSteps(records: readonly ToolCallRecord[], startedAt: number): StepRecord[] {
    this.toolCalls += records.length;
    this.results.push(...records);
    if (this.pendingCalls.length > 0) {
      return this.addContextSteps(records, { tokens: new Uint32Array(0), startedAt });
    }
    const results = this.calls.map(({ id, name }) => {
      const record = must(
        this.results.find((one) => one.id === id),
        'each call has a result',
      );
      return { name, result: record.result ?? '' };
    });
    let tokens = Uint32Array.from(this.context.protocol.renderToolResults(results));
    try {
      this.sequence.append(tokens);
    } catch (error) {
      if (!(error instanceof AppError) || error.code !== 'context_length_exceeded') throw error;
      // The calls did run and stay in the log; their text can't be read by the policy any more.
      tokens = new Uint32Array(0);
      this.end('context');
    }
    return this.addContextSteps(records, { tokens, startedAt });
  }

  /**
   * A tool step for each call, a prompt step for null. The last one holds all tokens, because a
   * protocol may wrap them together.
   */
  private addContextSteps(
    calls: readonly (ToolCallRecord | null)[],
    fields: { tokens: Uint32Array; startedAt: number },
  ): StepRecord[] {
    const { startedAt } = fields;
    return calls.map((toolCall, i) => {
      const tokens = i === calls.length - 1 ? fields.tokens : new Uint32Array(0);
      const text = this.context.tokenizer.decode(tokens);
      const kind = toolCall === null ? 'prompt' : 'tool';
      return this.addStep(kind, { tokens, text, toolCall, startedAt });
    });
  }

  private addStep(
    kind: StepKind,
    fields: Pick<StepRecord, 'tokens' | 'text' | 'startedAt'> & Partial<StepRecord>,
  ): StepRecord {
    const step: StepRecord = {
      id: this.context.newId('step'),
      parentId: this.steps.at(-1)?.id ?? null,
      index: this.steps.length,
      kind,
      policyVersion: this.sequence.policyVersion,
      logprobs: null,
      behaviourLogprobs: null,
      entropies: null,
      sampling: null,
      stepEntropy: null,
      deltaEntropy: null,
      toolCall: null,
      durationMs: this.context.clock.now() - fields.startedAt,
      ...fields,
    };
    this.steps.push(step);
    return step;
  }
}

function cutReason(result: Pick<SampleResult, 'finish'>): EndReason {
  return result.finish === 'context' ? 'context' : 'max_tokens';
}

/** Policy tokens of a path. */
export function policyTokens(steps: readonly StepRecord[]): number {
  return steps.reduce((sum, step) => sum + (step.kind === 'policy' ? step.tokens.length : 0), 0);
}
