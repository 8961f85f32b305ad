/**
 * All that a step leaves to the next one, beyond the job itself, and its form in a checkpoint. What
 * is not here is a function of the job and the step: every draw is keyed.
 */
import { AppError } from '../errors.ts';
import type { Weights } from '../model/types.ts';
import type { TrainingCounts } from '../records.ts';
import type { AdamWState } from './adamw.ts';
import type { Snapshot } from './checkpoint.ts';
import type { EarlyStop, StopState } from './early-stop.ts';
import { packAnswers } from './gate-evaluation.ts';
import type { GateAnswers } from './gate.ts';
import type { GroupSource, SourceState } from './group-source.ts';
import { copyInto, type WeightLag } from './weight-lag.ts';

export interface RunState {
  /** Steps done. */
  step: number;
  /** Why no more follow, before all are done. */
  stopped: string | null;
  /** Since the start of the run. */
  counts: TrainingCounts;
  /** The base's answers to the gate's tasks. */
  base: GateAnswers;
  weights: Weights;
  optimiser: AdamWState;
  lag: WeightLag;
  source: GroupSource;
  earlyStop: EarlyStop;
}

/** What `state` of a snapshot holds. */
interface Saved {
  stopped: string | null;
  counts: TrainingCounts;
  updates: number;
  source: SourceState;
  earlyStop: StopState;
}

export function snapshotOf(state: RunState, savedAt: number): Snapshot {
  const { step, stopped, counts, weights, optimiser, lag, source, earlyStop } = state;
  const arrays: Weights = new Map();
  put(arrays, 'weights', weights);
  put(arrays, 'first', moments(optimiser.first, weights));
  put(arrays, 'second', moments(optimiser.second, weights));
  lag.sets().forEach((set, i) => put(arrays, `lag.${i}`, set));
  put(arrays, 'base', packAnswers(state.base));
  const saved: Saved = {
    stopped,
    counts,
    updates: optimiser.step,
    source: source.state(),
    earlyStop: earlyStop.state(),
  };
  return { step, savedAt, state: { ...saved }, arrays };
}

/**
 * Makes `state`, which is that of a fresh run of the same job, what it was. `base` reads the stored
 * answers. Throws storage_failed before anything is changed.
 */
export function restoreState(
  state: Omit<RunState, 'base'>,
  snapshot: Snapshot,
  base: (arrays: Weights) => GateAnswers,
): RunState {
  const saved = snapshot.state as unknown as Saved;
  const take = (part: string): Weights => taken(snapshot.arrays, part);
  const [weights, first, second] = ['weights', 'first', 'second'].map((part) =>
    fitting(take(part), state.weights, part),
  ) as [Weights, Weights, Weights];
  const sets: Weights[] = [];
  for (let i = 0, set = take('lag.0'); set.size > 0; set = take(`lag.${++i}`)) {
    sets.push(fitting(set, state.weights, `lag.${i}`));
  }
  const answers = base(take('base'));

  copyInto(state.weights, weights);
  for (const [name, { data }] of first) state.optimiser.first.get(name)?.set(data);
  for (const [name, { data }] of second) state.optimiser.second.get(name)?.set(data);
  state.optimiser.step = saved.updates;
  state.lag.restore(sets);
  state.source.restore(saved.source);
  state.earlyStop.restore(saved.earlyStop);
  const { stopped, counts } = saved;
  return { ...state, step: snapshot.step, stopped, counts, base: answers };
}

const moments = (values: AdamWState['first'], weights: Weights): Weights =>
  new Map(
    [...values].map(([name, data]) => [name, { shape: weights.get(name)?.shape ?? [], data }]),
  );

function put(arrays: Weights, part: string, more: Weights): void {
  for (const [name, tensor] of more) arrays.set(`${part}/${name}`, tensor);
}

function taken(arrays: Weights, part: string): Weights {
  const prefix = `${part}/`;
  return new Map(
    [...arrays].flatMap(([name, tensor]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), tensor] as const] : [],
    ),
  );
}

/** `found` when it has the arrays that `wanted` has. */
function fitting(found: Weights, wanted: Weights, part: string): Weights {
  for (const [name, { data }] of wanted) {
    const length = found.get(name)?.data.length;
    if (length === data.length) continue;
    throw new AppError('storage_failed', `${part}/${name} has ${length ?? 'no'} values`);
  }
  return found;
}
