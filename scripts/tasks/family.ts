/** What a task family offers: one fresh random question, of whatever split its key falls into. */
import type { Prng } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';

export interface Draft {
  /** Chain, or template with numbers: what decides the split (split.ts). */
  key: string;
  question: string;
  truths: string[];
  verifier: Task['verifier'];
  tools: string[];
  metadata: Task['metadata'];
}

export interface Family {
  name: 'math' | 'knowledge' | 'deep-search';
  draw(prng: Prng): Draft;
}
