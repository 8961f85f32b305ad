/**
 * A trainer process for tests of the process edge: it speaks the real protocol through the real
 * shell, and behaves as `settings.behaviour` of its job says.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { runTrainerProcess } from '../trainer-shell.ts';
import type { TrainerEvent, TrainingJob } from '../types.ts';

const FOREVER_MS = 60_000;

const stepEvent = (job: TrainingJob, step: number): TrainerEvent => ({
  type: 'step',
  runId: job.runId,
  step,
  values: { rewardMean: step },
  counts: { rollouts: 0, branches: 0, toolCallsExecuted: 0, toolCallsSaved: 0, tokensSampled: 0 },
});

await runTrainerProcess(async (job, emit, signal) => {
  await emit({ type: 'started', runId: job.runId, settings: job.settings });
  switch (job.settings['behaviour']) {
    case 'steps':
      for (let step = 0; step < job.steps; step++) await emit(stepEvent(job, step));
      throw new Error('the last event of this test');
    case 'crash':
      process.stderr.write('out of luck\n');
      process.exit(7);
    // falls through is impossible: the process is gone
    case 'wait':
      await sleep(FOREVER_MS, undefined, { signal });
      return;
    case 'pause':
      await sleep(8_000, undefined, { signal });
      throw new Error('the last event of this test');
    case 'deaf':
      // Blocks the event loop, as a long native call does: only SIGKILL helps.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FOREVER_MS);
      return;
    default:
      throw new Error(`unknown behaviour ${String(job.settings['behaviour'])}`);
  }
});
