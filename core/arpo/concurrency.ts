/**
 * Work on many items at once with a bound and an orderly end: after a failure nothing new starts,
 * what runs is told to stop and is waited for, and only then the first error is thrown. So no stray
 * promise touches a sequence that was closed meanwhile.
 */

/**
 * Maps `items` with at most `limit` running; results keep the order of the items. `onError` is
 * called once, with the first failure, to abort the others.
 */
export async function mapBounded<T, R>(
  items: readonly T[],
  limit: number,
  work: (item: T, index: number) => Promise<R>,
  onError: (thrown: unknown) => void,
): Promise<R[]> {
  const results = new Array<R>(items.length);
  let next = 0;
  let failure: { thrown: unknown } | null = null;
  const lane = async (): Promise<void> => {
    while (next < items.length && failure === null) {
      const index = next++;
      try {
        results[index] = await work(items[index] as T, index);
      } catch (thrown) {
        if (failure === null) {
          failure = { thrown };
          onError(thrown);
        }
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane));
  rethrow(failure);
  return results;
}

/**
 * Work that starts further work. After a failure nothing new starts, and `ended` throws the first
 * one when everything has come to its end.
 */
export class Crew {
  private readonly onError: (thrown: unknown) => void;
  private readonly running = new Set<Promise<void>>();
  private failure: { thrown: unknown } | null = null;

  /** `onError` is called once, with the first failure, to abort the others. */
  constructor(onError: (thrown: unknown) => void) {
    this.onError = onError;
  }

  start(work: () => Promise<void>): void {
    if (this.failure !== null) return;
    const done: Promise<void> = work()
      .catch((thrown: unknown) => {
        if (this.failure !== null) return;
        this.failure = { thrown };
        this.onError(thrown);
      })
      .finally(() => this.running.delete(done));
    this.running.add(done);
  }

  /** Resolves when nothing runs any more. */
  async ended(): Promise<void> {
    // Each pass waits for at least one piece of work; those bound the passes.
    while (this.running.size > 0) await Promise.race(this.running);
    rethrow(this.failure);
  }
}

function rethrow(failure: { thrown: unknown } | null): void {
  if (failure === null) return;
  throw failure.thrown instanceof Error ? failure.thrown : new Error(String(failure.thrown));
}
