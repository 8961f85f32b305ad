/**
 * The job of a training run: what the trainer process is given, read from the stores when the run
 * begins and kept on disk, so that a run that goes on after a restart goes on with the same. Knows
 * nothing of queues and processes.
 */
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { AppError } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';
import type { TrainingJob } from '../core/trainer/types.ts';
import type { Stores } from '../db/stores.ts';
import type { PolicyService } from './policy-service.ts';
import type { RunFiles } from './run-files.ts';

export interface RetrainRequest {
  algorithm: 'arpo' | 'grpo';
  /** Default of the algorithm when absent. */
  steps?: number;
  settings: Record<string, unknown>;
  /** What it is fed with: imported tasks (default), rated live conversations, or both. */
  source?: 'tasks' | 'live' | 'both';
  seed?: number;
}

export type SeededRequest = RetrainRequest & { seed: number };

/** A run as it was asked for. */
export interface RequestedRun {
  id: string;
  request: SeededRequest;
}

export interface TrainingJobsOptions {
  stores: Stores;
  policies: PolicyService;
  runFiles: RunFiles;
  /** Candidates are written to <policiesFolder>/<version>. */
  policiesFolder: string;
  threads: number;
  device: 'cpu' | 'cuda' | 'webgpu';
  logger: Logger;
}

/** Steps of a run that names none: enough for the embedded policy to learn its tasks. */
export const DEFAULT_STEPS = 100;

export class TrainingJobs {
  private readonly options: TrainingJobsOptions;

  constructor(options: TrainingJobsOptions) {
    this.options = options;
  }

  /** The job as it was first started, or a new one from the policy that is live now. */
  async jobOf(queued: RequestedRun): Promise<TrainingJob> {
    const { stores, runFiles, policiesFolder, threads, device } = this.options;
    const kept = await runFiles.find(queued.id);
    const job = kept ?? (await this.newJob(queued));
    const { path } = stores.policies.get(job.baseVersion);
    const made = stores.policies.find(candidateVersion(job));
    const ours = made === null || made.sourceRunId === queued.id;
    const version = ours ? candidateVersion(job) : stores.policies.nextVersion();
    const candidateDirectory = join(policiesFolder, String(version));
    // Left over from a process that died between writing and registering: nobody knows it.
    if (made === null || !ours) await rm(candidateDirectory, { recursive: true, force: true });
    const current = { ...job, baseDirectory: path, candidateDirectory, threads, device };
    if (kept === null) await runFiles.keep(current);
    return current;
  }

  private async newJob({ id, request }: RequestedRun): Promise<TrainingJob> {
    const { stores, policies, policiesFolder, runFiles, threads, device, logger } = this.options;
    const { source = 'tasks' } = request;
    const live = source === 'tasks' ? null : await stores.liveSamples.newest();
    if (live !== null) {
      const conversations = live.samples.length;
      logger.info({ runId: id, conversations, chats: live.chats }, 'rated conversations read');
    }
    if (live !== null) {
      const ids = live.samples.map(({ trajectory }) => trajectory.id);
      await stores.feedback.markConsumed(ids, id);
    }
    const base = stores.policies.get(policies.liveVersion);
    return {
      runId: id,
      algorithm: request.algorithm,
      steps: request.steps ?? DEFAULT_STEPS,
      settings: request.settings,
      seed: request.seed,
      baseVersion: base.version,
      baseDirectory: base.path,
      baseKind: base.kind,
      candidateDirectory: join(policiesFolder, String(stores.policies.nextVersion())),
      checkpointDirectory: runFiles.checkpointDirectory(id),
      ...(live !== null && { liveSamples: live.samples }),
      trainTasks: source === 'live' ? [] : await stores.tasks.select({ split: 'train' }),
      gateTasks: await stores.tasks.select({ split: 'gate' }),
      threads,
      device,
    };
  }

  /** What a run is fed with: `both` without a task to train on is a run on conversations. */
  sourceOf({ source = 'tasks' }: RetrainRequest): NonNullable<RetrainRequest['source']> {
    const { tasks } = this.options.stores;
    return source === 'both' && tasks.count({ split: 'train' }) === 0 ? 'live' : source;
  }

  /** Whether the conversations are of use, and enough to hold some out, the trainer finds out. */
  checkSource(source: 'tasks' | 'live' | 'both'): void {
    const { tasks, trajectories } = this.options.stores;
    const rated = source !== 'tasks' && trajectories.countNewScored(0) > 0;
    for (const split of ['train', 'gate'] as const) {
      const asked = split === 'gate' || source !== 'live';
      if (rated || (asked && tasks.count({ split }) > 0)) continue;
      const or = source === 'tasks' ? '' : ', and no agent run has a reward';
      throw new AppError('invalid_request', `source: no task of split '${split}' is stored${or}`, {
        param: 'source',
      });
    }
  }
}

/** The version that the candidate will get: its directory is named so. */
export function candidateVersion({ candidateDirectory }: TrainingJob): number {
  return Number(basename(candidateDirectory));
}
