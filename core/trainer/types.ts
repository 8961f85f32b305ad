/** The trainer as the server sees it, and what crosses the process border. */
import type {
  GateReport,
  LiveSample,
  PolicyRecord,
  StepRecord,
  Task,
  TrainingCounts,
  TrajectoryRecord,
} from '../records.ts';

/** One training run, complete: the trainer process needs nothing else. */
export interface TrainingJob {
  runId: string;
  algorithm: 'arpo' | 'grpo';
  steps: number;
  /** Settings in force, by arpo.md's names; see core/arpo/settings.ts. */
  settings: Record<string, unknown>;
  seed: number;
  baseVersion: number;
  baseDirectory: string;
  /** Whether the base is an adapter, which is then trained on; full when left out. */
  baseKind?: PolicyRecord['kind'];
  /** Where the candidate is written: whole under a temporary name, then renamed to this. */
  candidateDirectory: string;
  /**
   * A folder of this run alone. The trainer keeps its checkpoints there and goes on from the newest
   * whole one that this same job left; without it an interrupted run starts over. The caller
   * removes it, and what an interrupted run left in `candidateDirectory`.
   */
  checkpointDirectory?: string;
  /** What the trainer may take of memory; 80 % of the machine's when left out. */
  memoryBytes?: number;
  trainTasks: Task[];
  /** None: the gate compares on a held-out share of the conversations. */
  gateTasks: Task[];
  /** Rated live conversations, the newest rating first. */
  liveSamples?: LiveSample[];
  /** onnxruntime threads of the trainer. */
  threads: number;
  /** Where the trainer computes; cpu when left out. */
  device?: 'cpu' | 'cuda' | 'webgpu';
}

/**
 * From the trainer process to the server: `started`, then for each step (from 1) one `rollouts` a
 * group and one `step`, then exactly one of the last three.
 *
 * A run that found checkpoints says `resumed` after `started`, and goes on with the step after the
 * one named. Steps that an earlier process did beyond it are done again: their `rollouts` and
 * `step` come a second time, with the same contents but for ids and times, and take the place of
 * the first. `step` is written before the checkpoint of that step is made, so the log is never
 * behind a checkpoint.
 */
export type TrainerEvent =
  | { type: 'started'; runId: string; settings: Record<string, unknown> }
  | {
      type: 'resumed';
      runId: string;
      /** Done and kept; 0: no checkpoint was of use and the run starts over. */
      step: number;
      /** When that step was kept (milliseconds since the epoch): rollouts made later come again. */
      savedAt: number;
      /** Why newer checkpoints were not used, one sentence each. */
      refused: string[];
    }
  | {
      type: 'rollouts';
      runId: string;
      step: number;
      steps: StepRecord[];
      trajectories: TrajectoryRecord[];
    }
  | {
      type: 'step';
      runId: string;
      step: number;
      /** Figures of this step alone; see core/trainer/figures.ts. */
      values: Record<string, number>;
      /** Since the start of the run. */
      counts: TrainingCounts;
    }
  | {
      /** The rest of the steps is left out (setting `earlyStop`); the gate comes next. */
      type: 'stopped';
      runId: string;
      step: number;
      reason: string;
    }
  | { type: 'candidate'; runId: string; directory: string; sha256: string; gate: GateReport }
  | { type: 'failed'; runId: string; code: string; message: string }
  | { type: 'cancelled'; runId: string };

/** Runs one job in a child process. */
export interface TrainerHandle {
  /** Resolves when the process ended; the reason is in the events, or `died`. */
  readonly done: Promise<{
    outcome: 'completed' | 'failed' | 'cancelled' | 'died';
    detail: string;
  }>;
  /** Asks for an orderly end after the current step, then kills. */
  cancel(): void;
  readonly pid: number | undefined;
}

/**
 * `onEvent` is called for one event at a time; the next waits until it has resolved. A rejection
 * (the event could not be written) stops the run.
 */
export type StartTrainer = (
  job: TrainingJob,
  onEvent: (event: TrainerEvent) => void | Promise<void>,
) => TrainerHandle;
