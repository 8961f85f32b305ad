/**
 * Which split a question belongs to: decided by a hash of its chain (start entity and relations) or
 * of its sum (template and numbers), never by the order of generation. So any generator, however
 * long it runs, keeps away from what is held out.
 */
import { createHash } from 'node:crypto';
import type { TaskSplit } from '../../core/records.ts';

/** Of 100 chains, 10 belong to the gate and 10 to the test; the rest is for training. */
const GATE_PERCENT = 10;
const TEST_PERCENT = 10;

/** The split of a chain key. A pure function of the text. */
export function splitOf(key: string): TaskSplit {
  const percent = keyHash(key) % 100;
  if (percent < GATE_PERCENT) return 'gate';
  return percent < GATE_PERCENT + TEST_PERCENT ? 'test' : 'train';
}

/** An unsigned 32-bit hash of a text, the same on every machine. */
export function keyHash(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32BE(0);
}
