/**
 * When a run ends before its last step (setting `earlyStop`), from the mean reward of each step
 * alone. The rewards of single steps are noisy, so the mean of the last `stopWindow` is looked at:
 * `target` ends the run once it is high enough, `plateau` once it has reached no new best for
 * `stopPatience` steps. With a curriculum or dynamic sampling the rewards are those of the tasks
 * that were drawn, not of all.
 */
import { mean } from '../arpo/number.ts';
import type { ArpoSettings } from '../arpo/settings.ts';
import { must } from '../assert.ts';

export type StopSettings = Pick<
  ArpoSettings,
  'earlyStop' | 'stopWindow' | 'stopPatience' | 'targetReward'
>;

export interface StopState {
  /** Mean rewards of the last steps, the newest last; at most `stopWindow`. */
  recent: number[];
  best: number | null;
  bestStep: number;
}

export class EarlyStop {
  private readonly settings: StopSettings;
  private progress: StopState = { recent: [], best: null, bestStep: 0 };

  constructor(settings: StopSettings) {
    this.settings = settings;
  }

  /**
   * Why the run ends after `step`, as a sentence; null: it goes on. `reward` is the step's mean.
   */
  after(step: number, reward: number): string | null {
    const { earlyStop, stopWindow, stopPatience, targetReward } = this.settings;
    if (earlyStop === 'off') return null;
    const window = must(stopWindow, 'a window of steps');
    const recent = [...this.progress.recent, reward].slice(-window);
    this.progress = { ...this.progress, recent };
    if (recent.length < window) return null;
    const average = mean(recent);
    const over = `mean reward ${average.toFixed(3)} over ${window} steps`;
    if (earlyStop === 'target') {
      const target = must(targetReward, 'a target');
      return average >= target ? `${over} reached the target ${target}` : null;
    }
    const { best, bestStep } = this.progress;
    if (best === null || average > best) {
      this.progress = { recent, best: average, bestStep: step };
      return null;
    }
    const waited = step - bestStep;
    if (waited < must(stopPatience, 'patience')) return null;
    return `${over}: no new best for ${waited} steps, after ${best.toFixed(3)}`;
  }

  state(): StopState {
    return this.progress;
  }

  restore(state: StopState): void {
    this.progress = state;
  }
}
