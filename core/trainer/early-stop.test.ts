/** When a run ends early, by rewards step by step. */
import { describe, expect, it } from 'vitest';
import { EarlyStop, type StopSettings } from './early-stop.ts';

/** The step after which the rule ends a run with these mean rewards; null: it does not. */
function stopOf(settings: StopSettings, rewards: readonly number[]): number | null {
  const rule = new EarlyStop(settings);
  const at = rewards.findIndex((reward, i) => rule.after(i + 1, reward) !== null);
  return at === -1 ? null : at + 1;
}

describe('earlyStop', () => {
  it('off never ends a run', () => {
    expect(stopOf({ earlyStop: 'off' }, [1, 1, 1, 1, 1])).toBeNull();
  });

  it('target waits for a whole window at the target', () => {
    const target: StopSettings = { earlyStop: 'target', stopWindow: 3, targetReward: 0.8 };
    expect(stopOf(target, [0.9, 0.9])).toBeNull();
    expect(stopOf(target, [0.9, 0.9, 0.5, 0.9, 0.9, 0.8])).toBe(6);
    // One lucky step among poor ones is not enough.
    expect(stopOf(target, [0.1, 0.1, 1, 0.1, 0.1])).toBeNull();
  });

  it('plateau waits for patience steps without a new best of the window', () => {
    const plateau: StopSettings = { earlyStop: 'plateau', stopWindow: 2, stopPatience: 3 };
    expect(stopOf(plateau, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])).toBeNull();
    // The best mean is that of steps 2 and 3.
    expect(stopOf(plateau, [0.1, 0.5, 0.5, 0.4, 0.5, 0.4, 0.5])).toBe(6);
    // A new best in time starts the wait anew.
    expect(stopOf(plateau, [0.1, 0.5, 0.5, 0.4, 0.7, 0.4, 0.5, 0.4])).toBe(8);
  });

  it('goes on from its state as if it had not stopped', () => {
    const settings: StopSettings = { earlyStop: 'plateau', stopWindow: 2, stopPatience: 3 };
    const rewards = [0.1, 0.5, 0.5, 0.4, 0.5, 0.4, 0.5];
    for (let cut = 0; cut < 6; cut++) {
      const first = new EarlyStop(settings);
      rewards.slice(0, cut).forEach((reward, i) => first.after(i + 1, reward));
      const second = new EarlyStop(settings);
      second.restore(JSON.parse(JSON.stringify(first.state())) as ReturnType<EarlyStop['state']>);
      const at = rewards.findIndex((reward, i) => i >= cut && second.after(i + 1, reward) !== null);
      expect(at + 1).toBe(6);
    }
  });

  it('names the figures in its reason', () => {
    const rule = new EarlyStop({ earlyStop: 'target', stopWindow: 1, targetReward: 0.5 });
    expect(rule.after(1, 0.75)).toBe('mean reward 0.750 over 1 steps reached the target 0.5');
  });
});
