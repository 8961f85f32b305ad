/**
 * What makes two jobs the same run: a hash of every field that its weights depend on, so that a
 * checkpoint is never taken up by another run, and a refusal can say what differs.
 */
import { createHash } from 'node:crypto';
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

/** Of a value's JSON text, whose keys have one order: jobs are made by one piece of code. */
function hashOf(value: unknown): string {
  return createHash('sha256')
    .update(JSON.stringify(value) ?? 'undefined')
    .digest('hex')
    .slice(0, 16);
}
