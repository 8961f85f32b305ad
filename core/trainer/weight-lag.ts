/**
 * Rollouts from the weights of some steps ago (setting `rolloutLag`): an asynchronous trainer in
 * miniature, to measure what off-policy corrections are worth. The sampler reads arrays of its own,
 * which follow the trained ones `lag` steps behind through a queue of copies; without a lag it
 * reads the trained arrays themselves and nothing is copied.
 */
import { assert, must } from '../assert.ts';
import type { Weights } from '../model/types.ts';

export class WeightLag {
  private readonly trained: Weights;
  private readonly sampled: Weights;
  private readonly lag: number;
  /** What the sampler is to get, the oldest first: at most `lag`. */
  private readonly waiting: Weights[] = [];

  /** `sampled` are the trained arrays themselves exactly when `lag` is 0. */
  constructor(trained: Weights, sampled: Weights, lag: number) {
    assert((trained === sampled) === (lag === 0), 'a lag needs arrays of its own');
    this.trained = trained;
    this.sampled = sampled;
    this.lag = lag;
  }

  /** Whether the sampler's weights are older than the trained ones. */
  get behind(): boolean {
    return this.waiting.length > 0;
  }

  /** After a step's update: the sampler moves on by one step, once it is `lag` behind. */
  advance(): void {
    if (this.lag === 0) return;
    this.waiting.push(copyOf(this.trained));
    if (this.waiting.length > this.lag)
      copyInto(this.sampled, must(this.waiting.shift(), 'a copy'));
  }

  /** The sampler gets the trained weights, as what is judged must be what is kept. */
  catchUp(): void {
    if (this.lag === 0) return;
    copyInto(this.sampled, this.trained);
    this.waiting.length = 0;
  }

  /** As arrays of a checkpoint, by position: the sampler's own first. */
  sets(): Weights[] {
    return this.lag === 0 ? [] : [this.sampled, ...this.waiting];
  }

  /** Goes on from `sets`. */
  restore(sets: readonly Weights[]): void {
    const [sampled, ...waiting] = sets;
    if (sampled === undefined) return;
    copyInto(this.sampled, sampled);
    this.waiting.splice(0, this.waiting.length, ...waiting);
  }
}

/** Arrays of the same names and shapes, with their own memory. */
export function copyOf(weights: Weights): Weights {
  return new Map(
    [...weights].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]),
  );
}

/** Overwrites the numbers of `into`; both have the same names and lengths. */
export function copyInto(into: Weights, from: Weights): void {
  for (const [name, { data }] of into) data.set(must(from.get(name), `weight ${name}`).data);
}
