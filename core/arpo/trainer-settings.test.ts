/** Settings of the trainer's part: what each switch brings into force, and what it then refuses. */
import { describe, expect, it } from 'vitest';
import { LIMITS } from '../limits.ts';
import { parseSettings } from './settings.ts';

const refused = (overrides: Record<string, unknown>, name: string): void => {
  expect(() => parseSettings('arpo', overrides)).toThrowError(
    expect.objectContaining({ code: 'invalid_request', param: `settings.${name}` }),
  );
};

describe('switches of the trainer', () => {
  it('are off, and what they would read is absent', () => {
    const settings = parseSettings('arpo');
    expect(settings).toMatchObject({
      dynamicSampling: false,
      curriculum: 'off',
      earlyStop: 'off',
      epochs: 1,
      rolloutLag: 0,
      packing: 'auto',
      gateSamples: 1,
      gateGreedy: false,
      checkpointEvery: 10,
    });
    for (const name of ['maxResample', 'curriculumFloor', 'stopWindow', 'stopPatience']) {
      expect(settings).not.toHaveProperty(name);
    }
  });

  it('bring their settings with them', () => {
    expect(parseSettings('arpo', { dynamicSampling: true })).toMatchObject({ maxResample: 8 });
    expect(
      parseSettings('arpo', { curriculum: 'solved-share', curriculumFloor: 0.1 }),
    ).toMatchObject({ curriculumFloor: 0.1 });
    expect(parseSettings('arpo', { earlyStop: 'plateau', stopWindow: 3 })).toMatchObject({
      stopWindow: 3,
      stopPatience: 20,
    });
    const target = parseSettings('arpo', { earlyStop: 'target', targetReward: 0.9 });
    expect(target).toMatchObject({ stopWindow: 10, targetReward: 0.9 });
    expect(target).not.toHaveProperty('stopPatience');
  });

  it('refuse what would do nothing, and a target that is not named', () => {
    refused({ maxResample: 4 }, 'maxResample');
    refused({ dynamicSampling: false, maxResample: 4 }, 'maxResample');
    refused({ curriculumFloor: 0.1 }, 'curriculumFloor');
    refused({ stopWindow: 3 }, 'stopWindow');
    refused({ earlyStop: 'plateau', targetReward: 1 }, 'targetReward');
    refused({ earlyStop: 'target', targetReward: 1, stopPatience: 5 }, 'stopPatience');
    refused({ earlyStop: 'target' }, 'targetReward');
    refused({ rolloutLag: 17 }, 'rolloutLag');
    refused({ packing: 'dense' }, 'packing');
  });

  it('refuse a gate that nothing could pass', () => {
    const least = LIMITS.gateTasksMin;
    expect(parseSettings('arpo', { gateTasks: least })).toMatchObject({ gateTasks: least });
    expect(() => parseSettings('arpo', { gateTasks: least - 1 })).toThrowError(
      expect.objectContaining({
        ...{ code: 'invalid_request', param: 'settings.gateTasks' },
        message: 'gateTasks must be at least 20 and at most 10000, not 19',
      }),
    );
  });

  it('let the clip settings count from the second epoch on', () => {
    refused({ epsHigh: 0.28 }, 'epsHigh');
    expect(parseSettings('arpo', { epochs: 2, epsHigh: 0.28 })).toMatchObject({ epsHigh: 0.28 });
  });

  it('parse again to the same object, as the trainer process does', () => {
    for (const some of [
      { dynamicSampling: true, earlyStop: 'plateau' },
      { curriculum: 'solved-share', earlyStop: 'target', targetReward: 0.5, epochs: 3 },
    ]) {
      const settings = parseSettings('arpo', some);
      expect(parseSettings('arpo', { ...settings })).toEqual(settings);
    }
  });
});
