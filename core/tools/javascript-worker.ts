/**
 * The thread of the JavaScript tool: loads QuickJS once and runs one piece of code at a time.
 * Started only by javascript-tool.ts; the messages are those of javascript-protocol.ts.
 */
import { parentPort } from 'node:worker_threads';
import { must } from '../assert.ts';
import { systemClock } from '../clock.ts';
import type { RunMessage, WorkerMessage } from './javascript-protocol.ts';
import { loadQuickJs, runInSandbox } from './javascript-sandbox.ts';

const port = must(parentPort, 'javascript-worker.ts runs in a worker thread');
const send = (message: WorkerMessage): void => port.postMessage(message);

const quickjs = await loadQuickJs();

port.on('message', ({ id, code, timeoutMs }: RunMessage) => {
  try {
    const outcome = runInSandbox(quickjs, code, { timeoutMs, clock: systemClock });
    send({ type: 'done', id, ...outcome });
  } catch (error) {
    // Typically the thread's own stack ran out inside WebAssembly, which leaves it in no state.
    const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    send({ type: 'done', id, result: { ok: false, reason: 'error', message }, broken: true });
  }
});

send({ type: 'ready' });
