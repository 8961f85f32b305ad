/**
 * What a training run keeps on disk until it ends, in <data>/checkpoints/<run id>: the job as it
 * was first started, so that a resumed run trains on the same tasks and conversations whatever was
 * imported or said meanwhile, and the trainer's checkpoints. Knows nothing of what is in those.
 */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import { AppError } from '../core/errors.ts';
import type { TrainingJob } from '../core/trainer/types.ts';

export class RunFiles {
  private readonly folder: string;

  /** `folder` is made when the first run begins. */
  constructor(folder: string) {
    this.folder = folder;
  }

  /** Where the trainer of a run keeps its checkpoints. */
  checkpointDirectory(runId: string): string {
    return join(this.folder, runId, 'steps');
  }

  /** The job that `keep` wrote; null when there is none, or none that can be read. */
  async find(runId: string): Promise<TrainingJob | null> {
    try {
      const job = deserialize(await readFile(this.jobPath(runId))) as TrainingJob;
      return job.runId === runId ? job : null;
    } catch {
      return null;
    }
  }

  /** Writes the job whole or not at all. @throws AppError storage_failed */
  async keep(job: TrainingJob): Promise<void> {
    const path = this.jobPath(job.runId);
    try {
      await mkdir(dirname(path), { recursive: true });
      const file = await open(`${path}.partial`, 'w');
      try {
        await file.writeFile(serialize(job));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(`${path}.partial`, path);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new AppError('storage_failed', `cannot write ${path}: ${why}`, { cause });
    }
  }

  /** Removes everything of a run that has ended. */
  async remove(runId: string): Promise<void> {
    await rm(join(this.folder, runId), { recursive: true, force: true });
  }

  /** Removes what is left of runs that are not named. */
  async removeOthers(runIds: readonly string[]): Promise<void> {
    const names = await readdir(this.folder).catch(() => []);
    for (const name of names) if (!runIds.includes(name)) await this.remove(name);
  }

  private jobPath(runId: string): string {
    return join(this.folder, runId, 'job');
  }
}
