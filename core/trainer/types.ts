/** The trainer as the server sees it, and what crosses the process border. */
import type {
  GateReport,
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
  trainTasks: Task[];
  gateTasks: Task[];
  /** onnxruntime threads of the trainer. */
  threads: number;
  /** Where the trainer computes; cpu when left out. */
  device?: 'cpu' | 'cuda' | 'webgpu';
}

/**
 * From the trainer process to the server: `started`, then for each step (from 1) one `rollouts` a
 * group and one `step`, then exactly one of the last three.
 */
export type TrainerEvent =
  | { type: 'started'; runId: string; settings: Record<string, unknown> }
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
