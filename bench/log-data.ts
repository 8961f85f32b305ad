/**
 * Rows for the bench of the log, as a server that trains and serves would leave them: rollouts in
 * groups of 16 over one prompt, of which half branch off behind a tool's result, and conversations
 * of agents. Tokens, log-probabilities and entropies have the lengths and sizes of a real policy's;
 * only their order is random. Everything follows from a seed.
 */
import { must } from '../core/assert.ts';
import { idGenerator } from '../core/ids.ts';
import type { NewId } from '../core/ids.ts';
import type { ManualClock } from '../core/clock.ts';
import type { LogBatch } from '../core/ports.ts';
import { Prng } from '../core/prng.ts';
import { DEFAULT_TENANT } from '../core/records.ts';
import type { EndReason, StepKind, StepRecord, TrajectoryRecord } from '../core/records.ts';

const VOCABULARY = 32_000;
const GROUP = 16;
const WORDS =
  'the a of in is and to Paris France capital search result think answer 42 because'.split(' ');

export class LogData {
  private readonly prng: Prng;
  private readonly clock: ManualClock;
  private readonly newId: NewId;
  private runs = 0;

  constructor(seed: number, clock: ManualClock) {
    this.prng = new Prng(seed);
    this.clock = clock;
    this.newId = idGenerator(clock);
  }

  /** A group of rollouts, or some conversations; about 50 steps. */
  batch(): LogBatch {
    return this.prng.next() < 0.8 ? this.group() : this.conversations();
  }

  private group(): LogBatch {
    const [steps, trajectories]: [StepRecord[], TrajectoryRecord[]] = [[], []];
    const version = 1 + Math.floor(this.runs++ / 200);
    const facts = {
      source: 'rollout' as const,
      taskId: `task_${this.prng.below(2_000)}`,
      trainingRunId: `trn_${version}`,
      groupId: this.newId('group'),
    };
    const root = this.step(null, 'prompt', version, 180);
    steps.push(root);
    const results: StepRecord[] = [];
    for (let i = 0; i < GROUP; i++) {
      this.clock.advance(20);
      const from = i < GROUP / 2 ? root : this.prng.pick(results);
      const path = this.path(from, version);
      steps.push(...path);
      results.push(...path.filter(({ kind }) => kind === 'tool'), from);
      trajectories.push({
        ...this.trajectory(path, version),
        ...facts,
        branchedFromStepId: from === root ? null : from.id,
        reward: this.reward(),
        trainingStep: this.runs % 200,
      });
    }
    return { steps, trajectories };
  }

  private conversations(): LogBatch {
    const [steps, trajectories]: [StepRecord[], TrajectoryRecord[]] = [[], []];
    for (let i = 0; i < 12; i++) {
      this.clock.advance(300);
      const version = 1 + Math.floor(this.runs / 200);
      const root = this.step(null, 'prompt', version, 120);
      const path = [root, ...this.path(root, version)];
      steps.push(...path);
      trajectories.push({
        ...this.trajectory(path, version),
        conversationId: this.newId('conversation'),
        reward: this.prng.next() < 0.3 ? this.reward() : null,
      });
    }
    return { steps, trajectories };
  }

  /** One to three policy steps, a tool's result between them. */
  private path(from: StepRecord, version: number): StepRecord[] {
    const path: StepRecord[] = [];
    const last = (): StepRecord => path.at(-1) ?? from;
    for (let calls = this.prng.below(3); calls > 0; calls--) {
      path.push(this.step(last(), 'policy', version, 60));
      path.push(this.step(last(), 'tool', version, 90));
    }
    path.push(this.step(last(), 'policy', version, 70));
    return path;
  }

  private step(
    parent: StepRecord | null,
    kind: StepKind,
    policyVersion: number,
    length: number,
  ): StepRecord {
    const { prng } = this;
    const count = Math.max(2, Math.floor(length * (0.4 + 1.2 * prng.next())));
    const sampled = kind === 'policy';
    // Most tokens of a trained policy are near certain, some are not.
    const size = (): number => Math.exp(11 * prng.next() ** 0.5 - 10.5);
    const floats = (sign: number): Float32Array =>
      Float32Array.from({ length: count }, () => sign * size());
    return {
      id: this.newId('step'),
      parentId: parent?.id ?? null,
      index: parent === null ? 0 : parent.index + 1,
      kind,
      policyVersion,
      tokens: Uint32Array.from({ length: count }, () => prng.below(VOCABULARY)),
      logprobs: sampled ? floats(-1) : null,
      behaviourLogprobs: null,
      entropies: sampled ? floats(1) : null,
      sampling: sampled ? { temperature: 1, topP: 1, topK: 0, seed: prng.below(2 ** 31) } : null,
      stepEntropy: sampled ? 0.2 * prng.next() : null,
      deltaEntropy: sampled ? 0.6 * prng.next() ** 6 - 0.05 : null,
      text: Array.from({ length: Math.ceil(0.75 * count) }, () => prng.pick(WORDS)).join(' '),
      toolCall: kind === 'tool' ? this.toolCall() : null,
      startedAt: this.clock.now(),
      durationMs: 1_000 * prng.next(),
    };
  }

  private toolCall(): StepRecord['toolCall'] {
    const draw = this.prng.next();
    return {
      id: this.newId('toolCall'),
      name: draw < 0.7 ? 'search' : draw < 0.9995 ? 'javascript' : 'http',
      arguments: '{"query":"capital of France"}',
      result: Array.from({ length: 60 }, () => this.prng.pick(WORDS)).join(' '),
      error: null,
      durationMs: 12.5,
      effects: 'none',
      served: 'live',
    };
  }

  private trajectory(path: readonly StepRecord[], policyVersion: number): TrajectoryRecord {
    const draw = this.prng.next();
    const endReason: EndReason =
      draw < 0.9 ? 'answer' : draw < 0.96 ? 'max_tokens' : draw < 0.99 ? 'cancelled' : 'failed';
    const ended = endReason === 'cancelled' || endReason === 'failed';
    const leaf = must(path.at(-1), 'a path has steps');
    return {
      id: this.newId('trajectory'),
      tenant: DEFAULT_TENANT,
      source: 'live',
      conversationId: null,
      leafStepId: leaf.id,
      policyVersion,
      taskId: null,
      trainingRunId: null,
      groupId: null,
      branchedFromStepId: null,
      status: ended ? endReason : 'completed',
      endReason,
      answer: 'Paris',
      formatOk: draw < 0.95,
      reward: null,
      toolCalls: path.filter(({ kind }) => kind === 'tool').length,
      sampledTokens: path.reduce(
        (sum, { kind, tokens }) => sum + +(kind === 'policy') * tokens.length,
        0,
      ),
      createdAt: this.clock.now(),
    };
  }

  private reward(): number {
    const draw = this.prng.next();
    if (draw < 0.1) return -1;
    return draw < 0.4 ? 0 : draw < 0.8 ? 1 : draw;
  }
}
