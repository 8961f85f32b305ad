/**
 * The thread that searches collections, on its own connection. Started only by search-thread.ts;
 * the messages are those of search-protocol.ts. A file that cannot be opened ends it.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { must } from '../core/assert.ts';
import { systemClock } from '../core/clock.ts';
import { readCollections } from './collection-store.ts';
import type { SearchAnswer, SearchRequest } from './search-protocol.ts';

const port = must(parentPort, 'search-worker.ts runs in a worker thread');
const path = workerData as string;
const store = must(readCollections(path, systemClock), `there are collections at ${path}`);

port.on('message', ({ collection, query, limit }: SearchRequest) => {
  let answer: SearchAnswer;
  try {
    answer = { hits: store.index(collection).search(query, limit) };
  } catch (error) {
    answer = { fault: error instanceof Error ? error.message : String(error) };
  }
  port.postMessage(answer);
});
