/** What the processes of an experiment tell each other. A child makes one run and ends. */
import type { Arm } from './arms.ts';
import type { Plan, RunRecord } from './plan.ts';

export interface ToChild {
  type: 'run';
  plan: Plan;
  arm: Arm;
  seed: number;
}

export type FromChild =
  | { type: 'step'; step: number; steps: number }
  | { type: 'run'; record: RunRecord }
  | { type: 'failed'; message: string };
