/**
 * The process edge with real child processes. What could silently break: events out of order or
 * lost, a crash taken for an end, a hang that blocks a cancel, a failed write that is ignored, an
 * orphan.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { getPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { LIMITS } from '../limits.ts';
import { quiet } from '../log.ts';
import { builtModule } from '../paths.ts';
import type { TrainerProcessOptions } from './start-trainer.ts';
import { trainerStarter } from './start-trainer.ts';
import { testJob } from './testing/test-job.ts';
import type { TrainerEvent, TrainerHandle } from './types.ts';

const module = builtModule(import.meta.url, './testing/odd-trainer.ts');

function start(
  settings: Record<string, unknown>,
  onEvent: (event: TrainerEvent) => void | Promise<void>,
  options: Partial<TrainerProcessOptions> = {},
): TrainerHandle {
  const starter = trainerStarter({ module, logger: quiet, ...options });
  return starter(testJob(settings, 'unused'), onEvent);
}

/** Starts a run and resolves once its `started` event is there. */
async function started(behaviour: string, options?: Partial<TrainerProcessOptions>) {
  const events: TrainerEvent[] = [];
  let seen: () => void = () => undefined;
  const first = new Promise<void>((resolve) => (seen = resolve));
  const onEvent = (event: TrainerEvent): void => {
    events.push(event);
    seen();
  };
  const handle = start({ behaviour }, onEvent, options);
  await first;
  return { handle, events };
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('a trainer process', () => {
  it('delivers events in order, and its error as the last one', async () => {
    const events: TrainerEvent[] = [];
    const handle = start({ behaviour: 'steps' }, (event) => void events.push(event));
    expect(await handle.done).toEqual({ outcome: 'failed', detail: 'the last event of this test' });
    expect(events.map((event) => event.type)).toEqual([
      'started',
      ...Array.from({ length: 10 }, () => 'step'),
      'failed',
    ]);
    expect(events.flatMap((event) => (event.type === 'step' ? [event.step] : []))).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
    ]);
  });

  it('is handed one event at a time, and waits for a slow reader', async () => {
    let open = 0;
    let widest = 0;
    let count = 0;
    const handle = start({ behaviour: 'steps' }, async () => {
      widest = Math.max(widest, ++open);
      await sleep(5);
      open--;
      count++;
    });
    await handle.done;
    expect({ widest, count }).toEqual({ widest: 1, count: 12 });
  });

  it('has a lower priority than this process', async () => {
    const { handle } = await started('wait');
    expect(getPriority(handle.pid)).toBeGreaterThan(getPriority());
    handle.cancel();
    await handle.done;
  });

  it('that crashes is reported as died, with its last words', async () => {
    const { handle, events } = await started('crash');
    expect(await handle.done).toEqual({ outcome: 'died', detail: 'exit code 7: out of luck' });
    expect(events.map((event) => event.type)).toEqual(['started']);
  });

  it('that is killed is reported as died', async () => {
    const { handle } = await started('wait');
    process.kill(handle.pid as number, 'SIGKILL');
    expect(await handle.done).toEqual({ outcome: 'died', detail: 'SIGKILL' });
  });

  it('ends in order when cancelled, also twice', async () => {
    const { handle, events } = await started('wait');
    handle.cancel();
    handle.cancel();
    expect(await handle.done).toEqual({ outcome: 'cancelled', detail: 'cancelled' });
    expect(events.at(-1)).toEqual({ type: 'cancelled', runId: 'trn_test' });
  });

  it('ends in order when cancelled before it is ready', async () => {
    const events: TrainerEvent[] = [];
    const handle = start({ behaviour: 'wait' }, (event) => void events.push(event));
    handle.cancel();
    expect(await handle.done).toEqual({ outcome: 'cancelled', detail: 'cancelled' });
    expect(events).toEqual([{ type: 'cancelled', runId: 'trn_test' }]);
  });

  it('that hears nothing is killed', async () => {
    const { handle } = await started('deaf', { stopTimeoutMs: 200 });
    handle.cancel();
    expect(await handle.done).toEqual({ outcome: 'cancelled', detail: 'killed: SIGKILL' });
  });

  it('that is silent while it runs is killed, and reported as died', async () => {
    const { handle } = await started('deaf', { silenceTimeoutMs: 3_000 });
    expect(await handle.done).toEqual({
      outcome: 'died',
      detail: 'no sign of life within 3000 ms',
    });
  });

  it('that computes for long without an event is left alone', async () => {
    const { handle, events } = await started('pause', { silenceTimeoutMs: 5_000 });
    expect((await handle.done).detail).toBe('the last event of this test');
    expect(events.map(({ type }) => type)).toEqual(['started', 'failed']);
  }, 30_000);

  it('that never gets ready is killed', async () => {
    const handle = start({ behaviour: 'wait' }, () => undefined, { startTimeoutMs: 1 });
    expect(await handle.done).toEqual({
      outcome: 'failed',
      detail: 'no sign of life within 1 ms',
    });
  });

  it('is stopped when an event cannot be written', async () => {
    const handle = start({ behaviour: 'wait' }, () => Promise.reject(new Error('disk full')));
    expect(await handle.done).toEqual({
      outcome: 'failed',
      detail: 'event started could not be handled: disk full',
    });
  });

  it('does not outlive the server', async () => {
    const standIn = fork(builtModule(import.meta.url, './testing/server-stand-in.ts'), [], {
      execArgv: [],
    });
    const [trainerPid] = (await once(standIn, 'message')) as [number];
    expect(alive(trainerPid)).toBe(true);
    standIn.kill('SIGKILL');
    const deadline = performance.now() + LIMITS.trainerStopTimeoutMs;
    while (alive(trainerPid) && performance.now() < deadline) await sleep(20);
    expect(alive(trainerPid)).toBe(false);
  });
});
