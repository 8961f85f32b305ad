/**
 * What makes two jobs the same run: a hash of every field that its weights depend on, so that a
 * checkpoint is never taken up by another run, and a refusal can say what differs.
 */
import { createHash, type Hash } from 'node:crypto';
import type { ArpoSettings } from '../arpo/settings.ts';
import { directorySha256 } from './candidate.ts';
import type { TrainingJob } from './types.ts';

/** Hashes by field. */
export type JobIdentity = Readonly<Record<string, string>>;

/** Where things lie and how they are computed: a run may go on elsewhere. */
const PLACES = new Set<keyof TrainingJob>([
  'baseDirectory',
  'candidateDirectory',
  'checkpointDirectory',
  'memoryBytes',
  'threads',
  'device',
  'settings',
]);

/** `settings` are those in force. Reads the base's files. Throws storage_failed. */
export async function jobIdentity(job: TrainingJob, settings: ArpoSettings): Promise<JobIdentity> {
  const identity: Record<string, string> = {
    base: await directorySha256(job.baseDirectory),
  };
  for (const [name, value] of Object.entries(job)) {
    if (!PLACES.has(name as keyof TrainingJob)) identity[name] = hashOf(value);
  }
  for (const [name, value] of Object.entries(settings))
    identity[`settings.${name}`] = hashOf(value);
  return identity;
}

/** Of a value with its keys in the order they have: jobs are made by one piece of code. */
export function hashOf(value: unknown): string {
  const hash = createHash('sha256');
  add(hash, value);
  return hash.digest('hex').slice(0, 16);
}

/**
 * The JSON text of a value piece by piece, and the bytes of typed arrays: the tokens and figures of
 * many long conversations make a text that is longer than a string can be.
 */
function add(hash: Hash, value: unknown): void {
  if (ArrayBuffer.isView(value)) {
    hash.update(`${value.constructor.name} ${value.byteLength}:`);
    hash.update(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  } else if (typeof value === 'object' && value !== null) {
    const list = Array.isArray(value);
    hash.update(list ? '[' : '{');
    const entries = Object.entries(value).filter(([, item]) => list || item !== undefined);
    entries.forEach(([name, item], i) => {
      hash.update((i > 0 ? ',' : '') + (list ? '' : `${JSON.stringify(name)}:`));
      add(hash, item);
    });
    hash.update(list ? ']' : '}');
  } else {
    hash.update(JSON.stringify(value) ?? 'undefined');
  }
}
