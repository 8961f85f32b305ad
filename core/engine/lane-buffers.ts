/** What a set of inputs holds in memory, for transfers between threads. */
import type { Feeds } from '../model/session.ts';

/** The buffers under the inputs, each once. */
export function buffersOf(feeds: Feeds): ArrayBuffer[] {
  return [...new Set(Object.values(feeds).map(({ data }) => data.buffer as ArrayBuffer))];
}
