/**
 * Adds up what a training run says of itself (its `rollouts` and `step` events, as the server gets
 * them) into the costs, forks and series of a record. Tool calls are counted from the steps of the
 * forest and not from the run's own counters, so the figure means the same whatever the settings:
 * every call that some trajectory made for itself, and of those the distinct ones of a group.
 */
import { mean } from '../../core/arpo/number.ts';
import { must } from '../../core/assert.ts';
import type { StepRecord, TrajectoryRecord } from '../../core/records.ts';
import type { TrainerEvent } from '../../core/trainer/types.ts';
import type { Cost, ForkCount, StepSeries } from './plan.ts';

type Rollouts = Pick<Extract<TrainerEvent, { type: 'rollouts' }>, 'steps' | 'trajectories'>;

export class RunTally {
  private readonly total: Cost = {
    callsExecuted: 0,
    callsDistinct: 0,
    callsSaved: 0,
    rollouts: 0,
    forks: 0,
    tokensSampled: 0,
    tokensTrained: 0,
    tokensForwarded: 0,
    rolloutMs: 0,
    updateMs: 0,
    reloadMs: 0,
  };
  private forksByDepth = new Map<number, { forks: number; deltas: number[] }>();
  readonly series: StepSeries = {
    accuracy: [],
    callsExecuted: [],
    zeroVariance: [],
    entropy: [],
    gradientNorm: [],
  };

  /** Adds one group. */
  addGroup({ steps, trajectories }: Rollouts): void {
    const calls = steps.filter(isExecutedCall);
    this.total.callsExecuted += calls.length;
    this.total.callsDistinct += new Set(calls.map(callKey)).size;
    this.total.rollouts += trajectories.length;
    this.total.tokensSampled += steps
      .filter(({ kind }) => kind === 'policy')
      .reduce((sum, { tokens }) => sum + tokens.length, 0);
    const byId = new Map(steps.map((step) => [step.id, step]));
    for (const trajectory of trajectories) this.addFork(trajectory, steps, byId);
  }

  private addFork(
    { branchedFromStepId }: TrajectoryRecord,
    steps: readonly StepRecord[],
    byId: ReadonlyMap<string, StepRecord>,
  ): void {
    if (branchedFromStepId === null) return;
    this.total.forks++;
    const path = pathTo(branchedFromStepId, byId);
    this.total.callsSaved += path.filter(isExecutedCall).length;
    const results = path.filter(({ kind }) => kind === 'tool').length;
    const held = this.forksByDepth.get(results) ?? { forks: 0, deltas: [] };
    held.forks++;
    // The first child is that of the trajectory that ran the tool: parents come before children.
    const delta = steps.find(({ parentId }) => parentId === branchedFromStepId)?.deltaEntropy;
    if (delta !== null && delta !== undefined) held.deltas.push(delta);
    this.forksByDepth.set(results, held);
  }

  /** Adds the figures of one step. */
  addStep(values: Readonly<Record<string, number>>): void {
    this.total.tokensTrained += values['tokens_trained'] ?? 0;
    this.total.tokensForwarded += values['tokens_forwarded'] ?? 0;
    this.total.rolloutMs += values['rollout_ms'] ?? 0;
    this.total.updateMs += values['update_ms'] ?? 0;
    this.total.reloadMs += values['reload_ms'] ?? 0;
    this.series.accuracy.push(rounded(values['accuracy'] ?? 0));
    this.series.callsExecuted.push(this.total.callsExecuted);
    this.series.zeroVariance.push(rounded(values['zero_variance_share'] ?? 0));
    this.series.entropy.push(rounded(values['token_entropy_mean'] ?? 0));
    this.series.gradientNorm.push(rounded(values['gradient_norm'] ?? 0));
  }

  get cost(): Cost {
    return { ...this.total };
  }

  /** Forks since this was last asked, by depth. */
  takeForks(): ForkCount[] {
    const counts = [...this.forksByDepth]
      .sort(([a], [b]) => a - b)
      .map(([results, { forks, deltas }]) => ({
        results,
        forks,
        deltaEntropy: deltas.length === 0 ? null : rounded(mean(deltas)),
      }));
    this.forksByDepth = new Map();
    return counts;
  }
}

/** A call that reached a tool, or would have but for a cassette. */
function isExecutedCall({ toolCall }: StepRecord): boolean {
  return toolCall !== null && toolCall.error !== 'unknown_tool';
}

function callKey({ toolCall }: StepRecord): string {
  const call = must(toolCall, 'the call of a tool step');
  return `${call.name} ${call.arguments}`;
}

/** A step and all above it. */
function pathTo(id: string, byId: ReadonlyMap<string, StepRecord>): StepRecord[] {
  const path: StepRecord[] = [];
  for (let at: string | null = id; at !== null;) {
    const step: StepRecord = must(byId.get(at), `step ${at} of the forest`);
    path.push(step);
    at = step.parentId;
  }
  return path;
}

/** Five digits are more than the noise leaves, and keep the file small. */
export const rounded = (value: number): number => Number(value.toPrecision(5));
