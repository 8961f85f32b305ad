/**
 * Counter-based random numbers: every draw is a pure function of its key, so a sample does not
 * depend on which requests happened to share its batch (arpo.md section 3.5). The mixer is the
 * finaliser of MurmurHash3 applied over the key words; it is not for cryptography.
 */

/** Mixes any number of integers into one unsigned 32-bit word. */
export function mix(...words: number[]): number {
  let h = 0x9e3779b9;
  for (const word of words) {
    // Both halves count, so seeds and counters above 2^32 stay distinct.
    h = avalanche(h ^ (word >>> 0));
    h = avalanche(h ^ (Math.floor(word / 4294967296) >>> 0) ^ 0x85ebca6b);
  }
  return h;
}

function avalanche(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A draw in the open interval (0, 1): 2^24 equal steps, exact in float32, never 0 and never 1. */
export function uniform(...key: number[]): number {
  return ((mix(...key) >>> 9) + 0.5) / 8388608;
}

/** A seeded stream for code that draws in a fixed order (data generation, weight init). */
export class Prng {
  private counter = 0;
  private readonly seed: number;

  constructor(seed: number) {
    this.seed = seed;
  }

  /** Uniform in (0, 1). */
  next(): number {
    return uniform(this.seed, this.counter++);
  }

  /** Integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  /** Standard normal, by Box-Muller. */
  gaussian(): number {
    return Math.sqrt(-2 * Math.log(this.next())) * Math.cos(2 * Math.PI * this.next());
  }

  /** A new array in random order (Fisher-Yates). */
  shuffle<T>(items: readonly T[]): T[] {
    const out = [...items];
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const held = out[i] as T;
      out[i] = out[j] as T;
      out[j] = held;
    }
    return out;
  }
}

/** A 53-bit seed for callers that gave none. The only place that draws unseeded randomness. */
export function freshSeed(): number {
  return Math.floor(Math.random() * 2 ** 31);
}
