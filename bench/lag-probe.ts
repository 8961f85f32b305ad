/**
 * Loaded into the server by `node --import` while bench/serving.ts measures it: how late a timer of
 * the main thread fires. Late has two causes: something held the event loop (our own work, or a
 * disk that syncs), or the thread waited for a core because others ran. Linux counts the second one
 * for each thread, so both figures are given; elsewhere they are equal. Answers each message with
 * the figures since the last one. The server does not know of it.
 */
import { openSync, readSync } from 'node:fs';
import { createHistogram } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

export interface Lag {
  p50: number;
  p99: number;
  max: number;
}

export interface LagReport {
  all: Lag;
  /** Without the time in which the thread could have run and no core was free. */
  own: Lag;
}

const PERIOD_MS = 1;

// Threads of the server load this too; only the main one has the channel.
if (isMainThread && process.send !== undefined) {
  const histograms = { all: createHistogram(), own: createHistogram() };
  const coreWaitMs = coreWaitReader();
  let lastAt = performance.now();
  let lastWait = coreWaitMs();
  setInterval(() => {
    const now = performance.now();
    const wait = coreWaitMs();
    const late = now - lastAt - PERIOD_MS;
    record('all', late);
    record('own', late - (wait - lastWait));
    [lastAt, lastWait] = [now, wait];
  }, PERIOD_MS).unref();
  process.on('message', () => {
    process.send?.({ all: take('all'), own: take('own') } satisfies LagReport);
  });
  // The probe must not keep a server alive that wants to end.
  process.channel?.unref();

  function record(name: keyof LagReport, ms: number): void {
    histograms[name].record(Math.max(1, Math.round(ms * 1e6)));
  }

  function take(name: keyof LagReport): Lag {
    const histogram = histograms[name];
    const [p50, p99] = [histogram.percentile(50) / 1e6, histogram.percentile(99) / 1e6];
    const lag = { p50, p99, max: histogram.max / 1e6 };
    histogram.reset();
    return lag;
  }
}

/** Reads how long this thread has waited for a core; always 0 where the system does not say. */
function coreWaitReader(): () => number {
  let file: number;
  try {
    file = openSync('/proc/thread-self/schedstat', 'r');
  } catch {
    return () => 0;
  }
  const buffer = Buffer.alloc(128);
  return () => {
    const text = buffer.toString('latin1', 0, readSync(file, buffer, 0, buffer.length, 0));
    return Number(text.split(' ')[1]) / 1e6;
  };
}
