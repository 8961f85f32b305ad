/** Back-pressure of the event stream, and the job loop over a port without a process. */
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { AppError } from '../errors.ts';
import type { TrainerPort } from './job-loop.ts';
import { runTrainerJob } from './job-loop.ts';
import type { FromTrainer, ToTrainer } from './protocol.ts';
import { EventStream } from './protocol.ts';
import { testJob } from './testing/test-job.ts';
import type { TrainerEvent } from './types.ts';

const event: TrainerEvent = { type: 'started', runId: 'trn_test', settings: {} };

describe('EventStream', () => {
  it('holds back what goes beyond the bound until an acknowledgement', async () => {
    const posted: FromTrainer[] = [];
    const stream = new EventStream((message) => posted.push(message), 2);
    await stream.send(event);
    await stream.send(event);
    const third = stream.send(event);
    await setImmediate();
    expect(posted.length).toBe(2);
    stream.acknowledge(0);
    await third;
    expect(posted.map((message) => message.type === 'event' && message.sequence)).toEqual([
      0, 1, 2,
    ]);
    expect(stream.outstanding).toBe(2);
  });

  it('lets the last event pass a full stream, and drains', async () => {
    const stream = new EventStream(() => undefined, 1);
    await stream.send(event);
    await stream.send({ type: 'cancelled', runId: 'trn_test' });
    const drained = stream.drained(AbortSignal.timeout(5_000));
    stream.acknowledge(0);
    stream.acknowledge(1);
    await drained;
    expect(stream.outstanding).toBe(0);
  });

  it('stops waiting when aborted', async () => {
    const stream = new EventStream(() => undefined, 1);
    await stream.send(event);
    const abort = new AbortController();
    const second = stream.send(event, abort.signal);
    abort.abort(new Error('cancelled meanwhile'));
    await expect(second).rejects.toThrow('cancelled meanwhile');
    await expect(stream.send(event, abort.signal)).rejects.toThrow('cancelled meanwhile');
  });

  it('refuses acknowledgements out of order', async () => {
    const stream = new EventStream(() => undefined);
    expect(() => stream.acknowledge(0)).toThrow('out of order');
    await stream.send(event);
    expect(() => stream.acknowledge(1)).toThrow('out of order');
  });
});

describe('runTrainerJob', () => {
  /** A server that answers `ready` with a job and acknowledges every event. */
  function server(job = testJob({}, 'unused')) {
    const events: TrainerEvent[] = [];
    let deliver: (message: ToTrainer) => void = () => undefined;
    const port: TrainerPort = {
      receive: (handler) => (deliver = handler),
      post: (message) => {
        if (message.type === 'ready') return queueMicrotask(() => deliver({ type: 'job', job }));
        if (message.type === 'alive') return;
        events.push(message.event);
        queueMicrotask(() => deliver({ type: 'ack', sequence: message.sequence }));
      },
    };
    return { port, events, send: (message: ToTrainer) => deliver(message) };
  }
  const errors: Error[] = [];
  const options = (): { cancel: AbortController; report: (error: Error) => void } => ({
    cancel: new AbortController(),
    report: (error) => errors.push(error),
  });

  it('passes events on and adds none to a run that ends well', async () => {
    const { port, events } = server();
    await runTrainerJob(port, (_job, emit) => emit(event), options());
    expect(events).toEqual([event]);
  });

  it('reports a failure with its code', async () => {
    const { port, events } = server();
    const broken = new AppError('policy_invalid', 'config.json is missing');
    await runTrainerJob(port, () => Promise.reject(broken), options());
    expect(events).toEqual([
      {
        type: 'failed',
        runId: 'trn_test',
        code: 'policy_invalid',
        message: 'config.json is missing',
      },
    ]);
    expect(errors).toContain(broken);
  });

  it('turns a cancel in the middle of a run into its last event', async () => {
    const { port, events, send } = server();
    const run = runTrainerJob(
      port,
      async (_job, emit, signal) => {
        await emit(event);
        send({ type: 'cancel' });
        signal.throwIfAborted();
      },
      options(),
    );
    await run;
    expect(events).toEqual([event, { type: 'cancelled', runId: 'trn_test' }]);
  });
});
