/**
 * Checkpoints of a run: one folder a checkpoint, `step-000010`, with the arrays as a safetensors
 * file and the rest as JSON. It is written under a temporary name, synced, and renamed, so a crash
 * at any moment leaves whole checkpoints only; the two newest are kept, because the newest may turn
 * out to be damaged. A checkpoint says of which job it is, to the byte, and carries hashes of all
 * that it holds: what does not fit is refused, and the one before it, or the start, is used.
 *
 * Knows nothing of what a run keeps in it (run-state.ts does).
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError, toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { readJsonFile } from '../json-file.ts';
import { openSafetensors, writeSafetensors } from '../model/safetensors.ts';
import { heldWeights } from '../model/stored-weights.ts';
import type { Weights } from '../model/types.ts';
import { hashFile, syncPath } from './durable-files.ts';
import type { JobIdentity } from './job-identity.ts';

/** What a run has to remember after a step. */
export interface Snapshot {
  /** Steps done. */
  step: number;
  /** Milliseconds since the epoch. */
  savedAt: number;
  /** Small, and JSON. */
  state: Readonly<Record<string, unknown>>;
  arrays: Weights;
}

const FORMAT = 1;
const KEPT = 2;
const NAME = /^step-(\d{6})$/;
const STATE_FILE = 'state.json';
const ARRAYS_FILE = 'arrays.safetensors';

interface StateFile {
  format: number;
  job: JobIdentity;
  step: number;
  savedAt: number;
  arraysSha256: string;
  state: Snapshot['state'];
}

export class CheckpointFolder {
  private readonly folder: string;
  private readonly job: JobIdentity;

  /** `folder` belongs to one run; it need not exist. */
  constructor(folder: string, job: JobIdentity) {
    this.folder = folder;
    this.job = job;
  }

  /** Writes a checkpoint and removes those that it makes needless. Throws storage_failed. */
  async save(snapshot: Snapshot): Promise<void> {
    const name = nameOf(snapshot.step);
    try {
      const partial = join(this.folder, `.${name}.partial`);
      await rm(partial, { recursive: true, force: true });
      await mkdir(partial, { recursive: true });
      await this.write(partial, snapshot);
      // One of this name is there only when it was refused, or is as good as this one.
      await rm(join(this.folder, name), { recursive: true, force: true });
      await rename(partial, join(this.folder, name));
      await syncPath(this.folder);
      await this.prune(snapshot.step);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new AppError(
        'storage_failed',
        `cannot write the checkpoint of step ${snapshot.step} to ${this.folder}: ${why}`,
        { cause: error },
      );
    }
  }

  /**
   * Hands the newest checkpoint that is whole and of this job to `restore`; returns its step and
   * time, or null when none was taken. What `restore` throws (before it changes anything) refuses
   * the checkpoint too. `refused` says why newer ones were passed over.
   */
  async resume(restore: (snapshot: Snapshot) => void): Promise<{
    taken: { step: number; savedAt: number } | null;
    refused: string[];
  }> {
    const refused: string[] = [];
    for (const step of await this.steps()) {
      try {
        const snapshot = await this.read(step);
        restore(snapshot);
        return { taken: { step, savedAt: snapshot.savedAt }, refused };
      } catch (thrown) {
        refused.push(`checkpoint of step ${step}: ${toAppError(thrown).message}`);
      }
    }
    return { taken: null, refused };
  }

  private async write(directory: string, snapshot: Snapshot): Promise<void> {
    const arrays = join(directory, ARRAYS_FILE);
    writeSafetensors(arrays, snapshot.arrays);
    await syncPath(arrays);
    const { step, savedAt, state } = snapshot;
    const body: StateFile = {
      format: FORMAT,
      job: this.job,
      step,
      savedAt,
      arraysSha256: await fileSha256(arrays),
      state,
    };
    const text = JSON.stringify({ sha256: textSha256(JSON.stringify(body)), body });
    if (text.length > LIMITS.modelJsonBytesMax) {
      throw new Error(`its state has ${text.length} bytes, more than ${LIMITS.modelJsonBytesMax}`);
    }
    await writeFile(join(directory, STATE_FILE), text);
    await syncPath(join(directory, STATE_FILE));
    await syncPath(directory);
  }

  private async read(step: number): Promise<Snapshot> {
    const directory = join(this.folder, nameOf(step));
    const file = readJsonFile(join(directory, STATE_FILE)) as {
      sha256?: unknown;
      body?: StateFile;
    } | null;
    const body = file?.body;
    // JSON.stringify writes back what JSON.parse read, so the hash is over the same text.
    if (body === undefined || file?.sha256 !== textSha256(JSON.stringify(body))) {
      throw new AppError('storage_failed', `${STATE_FILE} is damaged`);
    }
    if (body.format !== FORMAT) {
      throw new AppError('storage_failed', `its format is ${body.format}, not ${FORMAT}`);
    }
    const others = differences(this.job, body.job);
    if (others.length > 0) {
      throw new AppError('storage_failed', `it is of another job: ${others.join(', ')} differ`);
    }
    if (body.step !== step) throw new AppError('storage_failed', `it holds step ${body.step}`);
    const arrays = join(directory, ARRAYS_FILE);
    if ((await fileSha256(arrays)) !== body.arraysSha256) {
      throw new AppError('storage_failed', `${ARRAYS_FILE} is damaged`);
    }
    const { savedAt, state } = body;
    return { step, savedAt, state, arrays: heldWeights(openSafetensors(arrays)) };
  }

  /** Steps that have a checkpoint, newest first. */
  private async steps(): Promise<number[]> {
    return (await this.names())
      .flatMap((name) => NAME.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => b - a);
  }

  private async names(): Promise<string[]> {
    try {
      return await readdir(this.folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw new AppError('storage_failed', `cannot read ${this.folder}: ${String(error)}`, {
        cause: error,
      });
    }
  }

  /** Keeps the checkpoint of `newest` and the one before it; later ones were refused. */
  private async prune(newest: number): Promise<void> {
    const kept = new Set(
      (await this.steps())
        .filter((step) => step <= newest)
        .slice(0, KEPT)
        .map(nameOf),
    );
    for (const name of await this.names()) {
      if (!kept.has(name)) await rm(join(this.folder, name), { recursive: true, force: true });
    }
  }
}

const nameOf = (step: number): string => `step-${String(step).padStart(6, '0')}`;

/** Names of what is not the same in both. */
function differences(mine: JobIdentity, found: JobIdentity): string[] {
  const names = new Set([...Object.keys(mine), ...Object.keys(found)]);
  return [...names].filter((name) => mine[name] !== found[name]);
}

function textSha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

async function fileSha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  await hashFile(hash, path);
  return hash.digest('hex');
}
