/** A process that makes one run of an experiment. It ends by itself when its parent is gone. */
import { toAppError } from '../../core/errors.ts';
import type { FromChild, ToChild } from './child-protocol.ts';
import { trainingRun } from './training-run.ts';

/** Resolves when the message is on its way, so that the process may end after it. */
const say = (message: FromChild): Promise<void> =>
  new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, () => resolve());
  });

const abort = new AbortController();
process.on('disconnect', () => process.exit(1));
process.once('message', (order: ToChild) => void work(order));

async function work({ plan, arm, seed }: ToChild): Promise<void> {
  try {
    const onStep = (step: number, steps: number): void => void say({ type: 'step', step, steps });
    const record = await trainingRun({ plan, arm, seed, signal: abort.signal, onStep });
    await say({ type: 'run', record });
  } catch (error) {
    await say({ type: 'failed', message: toAppError(error).message });
  }
  process.exit(0);
}
