/**
 * A process that starts a trainer, tells its process id to its own parent and then lives on: tests
 * kill it to see that its trainer does not outlive it.
 */
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { quiet } from '../../log.ts';
import { trainerStarter } from '../start-trainer.ts';
import { testJob } from './test-job.ts';

const module = new URL('./odd-trainer.js', import.meta.url);
const start = trainerStarter({ module, logger: quiet });
const handle = start(testJob({ behaviour: 'wait' }, fileURLToPath(module)), (event) => {
  if (event.type === 'started') process.send?.(handle.pid);
});
await sleep(60_000);
