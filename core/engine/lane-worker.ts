/**
 * A lane thread: a decode session of its own over the same weights, which runs a part of a batch
 * while the engine's thread runs another. Started only by lane-thread.ts; lane-protocol.ts has the
 * messages.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { must } from '../assert.ts';
import { toAppError } from '../errors.ts';
import { decodeGraph } from '../model/cache-graphs.ts';
import { createSession, type Feeds, type ModelSession, type TensorLike } from '../model/session.ts';
import { buffersOf } from './lane-buffers.ts';
import type { FromLane, LaneSettings, ToLane } from './lane-protocol.ts';

const port = must(parentPort, 'lane-worker.ts runs in a worker thread');
const send = (message: FromLane, transfer: ArrayBuffer[] = []): void =>
  port.postMessage(message, transfer);

try {
  const { config, weights, threads, ...options } = workerData as LaneSettings;
  const graph = decodeGraph(config, weights, options);
  serve(await createSession(graph, { device: 'cpu', threads }));
} catch (error) {
  send({ type: 'failed', message: toAppError(error).message, lent: {} });
}

function serve(session: ModelSession): void {
  port.on('message', (message: ToLane) => {
    if (message.type === 'run') void run(session, message.feeds, message.lent);
    else void session.dispose().finally(() => port.close());
  });
  send({ type: 'ready' });
}

async function run(session: ModelSession, feeds: Feeds, lent: Feeds): Promise<void> {
  const back = buffersOf(lent);
  try {
    const results = await session.run({ ...feeds, ...lent });
    // Plain objects: a tensor of the runtime does not survive the way back.
    const outputs: Record<string, TensorLike> = {};
    for (const [name, { dims, data }] of Object.entries(results)) outputs[name] = { dims, data };
    send({ type: 'done', outputs, lent }, [...back, ...buffersOf(outputs)]);
  } catch (error) {
    send({ type: 'failed', message: toAppError(error).message, lent }, back);
  }
}
