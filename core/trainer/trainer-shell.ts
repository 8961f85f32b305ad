/**
 * The process around the job loop: its port is the IPC channel of child_process.fork. It never
 * outlives the server: when the channel closes, the process exits. SIGTERM asks for an orderly end.
 */
import { assert } from '../assert.ts';
import { LIMITS } from '../limits.ts';
import type { RunJob } from './job-loop.ts';
import { runTrainerJob } from './job-loop.ts';
import type { FromTrainer, ToTrainer } from './protocol.ts';

/** Runs one job and exits. Call once, from the main module of a forked process. */
export async function runTrainerProcess(run: RunJob): Promise<void> {
  assert(process.send !== undefined, 'the trainer runs only as a forked child of the server');
  const cancel = new AbortController();
  process.on('disconnect', () => process.exit(1));
  process.on('SIGTERM', () => cancel.abort(new Error('the run was stopped by SIGTERM')));
  // Ctrl-C in a terminal reaches the whole process group; the server decides what happens then.
  process.on('SIGINT', () => undefined);
  const port = {
    post: (message: FromTrainer): void => {
      if (process.connected) process.send?.(message);
    },
    receive: (handler: (message: ToTrainer) => void): void => {
      process.on('message', (message) => handler(message as ToTrainer));
    },
  };
  const report = (error: Error): void => {
    process.stderr.write(`${error.stack ?? error.message}\n`);
  };
  const beat = setInterval(() => port.post({ type: 'alive' }), LIMITS.trainerBeatMs);
  await runTrainerJob(port, run, { cancel, report });
  clearInterval(beat);
  process.exit(0);
}
