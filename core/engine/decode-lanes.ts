/**
 * Lanes of one model: a batch is decoded in parts, one by the session of this thread and the others
 * by threads of their own, each with a dense cache for its rows. A small model gains more from two
 * half batches at once than from two threads at every product. A row stays in its lane as long as
 * it can, because moving costs a copy of its cache.
 */
import { AppError } from '../errors.ts';
import { cacheKeys, cacheValues } from '../model/cache-graphs.ts';
import type { Feeds, TensorLike } from '../model/session.ts';
import type { BatchKv } from './batch-kv.ts';
import type { LayerKv } from './kv-memory.ts';
import type { LaneThread } from './lane-thread.ts';
import type { SequenceKv } from './sequence-kv.ts';

/** One lane: null is the thread of the engine. */
export interface DecodeLane {
  kv: BatchKv;
  thread: LaneThread | null;
}

/**
 * Indices of the sequences for each lane, sizes equal or one apart. Lanes whose thread has died get
 * none.
 */
export function divideRows(
  lanes: readonly DecodeLane[],
  sequences: readonly SequenceKv[],
): { lane: DecodeLane; rows: number[] }[] {
  const usable = lanes.filter(({ thread }) => thread === null || thread.alive);
  const parts = usable.map((lane) => ({ lane, rows: [] as number[] }));
  const room = (i: number) => {
    const share = Math.floor(sequences.length / parts.length);
    return share + Number(i < sequences.length % parts.length);
  };
  const waiting: number[] = [];
  sequences.forEach((kv, row) => {
    const at = parts.findIndex(({ lane }) => lane.kv.holds(kv));
    const part = parts[at];
    if (part !== undefined && part.rows.length < room(at)) part.rows.push(row);
    else waiting.push(row);
  });
  parts.forEach(({ rows }, i) => rows.push(...waiting.splice(0, room(i) - rows.length)));
  return parts.filter(({ rows }) => rows.length > 0);
}

/** Runs `feeds` over the lane's cache in the lane's thread. */
export async function runInThread(
  { kv, thread }: DecodeLane,
  feeds: Feeds,
  cache: Feeds,
): Promise<Record<string, TensorLike>> {
  if (thread === null) throw new AppError('internal', 'internal: this lane has no thread');
  try {
    return await thread.run(feeds, cache, (lent) => kv.takeBack(layersOf(lent)));
  } catch (error) {
    // Whatever the thread had is lost with it.
    if (!thread.alive) kv.clear();
    throw error;
  }
}

/** The whole buffers under a lane's cache, by layer. */
function layersOf(lent: Feeds): LayerKv[] {
  const whole = (name: string) => new Float32Array(lent[name]!.data.buffer);
  const count = Object.keys(lent).length / 2;
  return Array.from({ length: count }, (_, layer) => ({
    keys: whole(cacheKeys(layer)),
    values: whole(cacheValues(layer)),
  }));
}
