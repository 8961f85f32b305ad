/**
 * Searches collections in a thread: a long query over many documents takes seconds, in which the
 * server would stand still. Searches run one after the other; one that is given up ends its thread,
 * as SQLite hears of nothing in mid-query, and the next gets a new one.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { AppError } from '../core/errors.ts';
import { builtModule } from '../core/paths.ts';
import type { SearchHit } from '../core/ports.ts';
import type { SearchAnswer, SearchRequest } from './search-protocol.ts';

export class SearchThread {
  private readonly path: string;
  private worker: Worker | null = null;
  private last: Promise<unknown> = Promise.resolve();
  private stopped = false;

  /** `path`: the file of the collections. The thread starts with the first search. */
  constructor(path: string) {
    this.path = path;
  }

  /** @throws AppError storage_failed; the signal's reason */
  search(request: SearchRequest, signal: AbortSignal): Promise<SearchHit[]> {
    const hits = this.last.then(() => this.ask(request, signal));
    this.last = hits.catch(() => undefined);
    return hits;
  }

  /** A search that is under way fails. */
  stop(): void {
    this.stopped = true;
    this.drop();
  }

  private async ask(request: SearchRequest, signal: AbortSignal): Promise<SearchHit[]> {
    signal.throwIfAborted();
    if (this.stopped) throw failed('they are closed');
    const worker = (this.worker ??= this.start());
    const over = new AbortController();
    const until = { signal: over.signal };
    const ends = [
      once(worker, 'exit', until).then(() => failed('the thread ended')),
      once(signal, 'abort', until).then(() => signal.reason as Error),
    ];
    try {
      worker.postMessage(request);
      const [answer] = (await Promise.race([
        once(worker, 'message', until),
        ...ends.map((end) => end.then((error) => Promise.reject(error))),
      ])) as [SearchAnswer];
      if ('hits' in answer) return answer.hits;
      throw failed(answer.fault);
    } catch (thrown) {
      if (this.worker === worker) this.drop();
      throw thrown;
    } finally {
      over.abort();
    }
  }

  private start(): Worker {
    const options = { workerData: this.path, env: {}, argv: [], execArgv: [] };
    const worker = new Worker(builtModule(import.meta.url, './search-worker.ts'), options);
    // The call that waits holds the process by its time limit; an idle thread must not.
    worker.unref();
    // One that fails while nothing waits for it must not end the process.
    worker.on('error', () => undefined);
    worker.on('exit', () => {
      if (this.worker === worker) this.worker = null;
    });
    return worker;
  }

  private drop(): void {
    void this.worker?.terminate();
    this.worker = null;
  }
}

function failed(why: string): AppError {
  return new AppError('storage_failed', `cannot search the collections: ${why}`);
}
