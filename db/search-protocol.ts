/**
 * Messages between a store of collections and the thread that searches them. Rules of the wire:
 * - one `SearchRequest` at a time; each is answered by one `SearchAnswer`;
 * - a search that is given up is not answered: the thread is terminated, and the next search gets
 *   a new one;
 * - there is no stop message: the thread holds a connection that only reads, so it is terminated.
 */
import type { SearchHit } from '../core/ports.ts';

export interface SearchRequest {
  collection: string;
  query: string;
  limit: number;
}

export type SearchAnswer = { hits: SearchHit[] } | { fault: string };
