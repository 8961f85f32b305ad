/**
 * Groups whose forest, tokens and probabilities are random, for tests of what is made of them: the
 * branches, the behaviours that sampled them and the weights that scored them again are all over
 * the place, as no rollout would have them at once.
 */
import type { Prng } from '../../prng.ts';
import type { StepKind, StepRecord } from '../../records.ts';
import type { RowGroup } from '../train-rows.ts';
import type { RewardedPath } from '../token-advantage.ts';

export interface RandomGroup extends RowGroup {
  trajectories: (RowGroup['trajectories'][number] & RewardedPath)[];
  rescored: Map<string, Float32Array>;
}

export interface RandomGroupOptions {
  /** Trajectories. */
  size: number;
  /** Chance that a trajectory branches off one before it. */
  branching: number;
  /** Deviation of behaviour from record, and of what was scored again, in nats. */
  offPolicy: number;
}

/** A group whose rewards are not all equal. */
export function randomGroup(prng: Prng, options: RandomGroupOptions): RandomGroup {
  const forest = new Forest(prng, options);
  const trajectories = Array.from({ length: options.size }, () => forest.grow());
  for (const [i, trajectory] of trajectories.entries()) {
    trajectory.reward = i === 0 ? 2 : Math.fround(prng.gaussian());
  }
  return {
    trajectories: trajectories as unknown as RandomGroup['trajectories'],
    rescored: forest.rescored,
  };
}

class Forest {
  readonly rescored = new Map<string, Float32Array>();
  private readonly prng: Prng;
  private readonly options: RandomGroupOptions;
  private readonly grown: RewardedPath[] = [];
  private readonly prompt: StepRecord;
  private steps = 0;

  constructor(prng: Prng, options: RandomGroupOptions) {
    this.prng = prng;
    this.options = options;
    this.prompt = this.step('prompt');
  }

  /** A fresh root rollout, or one that leaves another at the end of a tool result. */
  grow(): { reward: number } & RewardedPath {
    const parent = this.prng.next() < this.options.branching ? this.branchPoint() : null;
    const steps = [...(parent?.steps ?? [this.prompt]), this.step('policy')];
    while (this.prng.next() < 0.5) steps.push(this.step('tool'), this.step('policy'));
    const path = { reward: 0, root: parent?.root ?? this.grown.length, steps };
    this.grown.push(path);
    return path;
  }

  private branchPoint(): { root: number; steps: StepRecord[] } | null {
    if (this.grown.length === 0) return null;
    const { root, steps } = this.prng.pick(this.grown);
    const ends = [...steps.keys()].filter((at) => steps[at]?.kind === 'tool');
    return ends.length === 0 ? null : { root, steps: steps.slice(0, this.prng.pick(ends) + 1) };
  }

  private step(kind: StepKind): StepRecord {
    const { prng } = this;
    const length = 1 + prng.below(4);
    const draws = (draw: () => number) => Float32Array.from({ length }, draw);
    const id = `step-${this.steps++}`;
    const logprobs = draws(() => -0.2 - 2 * prng.next());
    const off = (): Float32Array => logprobs.map((logp) => this.moved(logp));
    const sampled = kind === 'policy';
    if (sampled && this.options.offPolicy > 0 && prng.below(2) === 0) this.rescored.set(id, off());
    const changed = this.options.offPolicy > 0 && prng.below(2) === 0;
    return {
      id,
      kind,
      tokens: Uint32Array.from({ length }, () => prng.below(50)),
      logprobs: sampled ? logprobs : null,
      behaviourLogprobs: sampled && changed ? off() : null,
      entropies: sampled ? draws(() => 2 * prng.next()) : null,
      policyVersion: prng.below(5),
    } as StepRecord;
  }

  private moved(logp: number): number {
    return Math.min(-0.01, logp + this.options.offPolicy * this.prng.gaussian());
  }
}
