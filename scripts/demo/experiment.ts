/**
 * The course of the demo: ask, post feedback, retrain under live traffic, ask the same questions
 * again. Needs a server that is ready; starts and stops none.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { mix } from '../../core/prng.ts';
import type { Asker } from './asker.ts';
import { examine, type Examination } from './examination.ts';
import { LiveTraffic } from './live-traffic.ts';
import type { DemoOptions } from './options.ts';
import { progressLine } from './progress.ts';
import { chooseQuestions, readTestTasks } from './questions.ts';
import { summarise, type Summary } from './summary.ts';
import { train, type Training } from './training.ts';

/** Keys that keep the draws of the parts apart. */
const SEEDS = { questions: 1, examination: 2, live: 3 } as const;
/** How long traffic goes on after the swap, so that the new version is seen to answer. */
const AFTER_SWAP_MS = 2_000;

export interface ExperimentOptions {
  options: DemoOptions;
  asker: Asker;
  /** Takes one line of progress. */
  say: (line: string) => void;
  signal: AbortSignal;
}

/** Failed requests are counted in the summary; throws only what ends the whole demo. */
export async function runExperiment(experiment: ExperimentOptions): Promise<Summary> {
  const { options, asker, say, signal } = experiment;
  const { seed } = options;
  const { questions, rest } = chooseQuestions(
    readTestTasks(),
    options.questions,
    mix(seed, SEEDS.questions),
  );
  const examineAll = async (when: string): Promise<Examination> => {
    say(`${when}: asking ${questions.length} held-out questions, each in two ways`);
    return examine(asker, questions, { seed: mix(seed, SEEDS.examination), signal });
  };
  const before = await examineAll('before training');
  const traffic = new LiveTraffic(asker, rest.length > 0 ? rest : questions, {
    seed: mix(seed, SEEDS.live),
    signal,
  });
  traffic.start();
  let training: Training;
  try {
    training = await trainUnder(traffic, experiment);
    await delay(AFTER_SWAP_MS, undefined, { signal });
  } finally {
    await traffic.stop();
  }
  const after = await examineAll('after the swap');
  const { length } = questions;
  return summarise({ seed, questions: length, before, after, live: traffic, training });
}

function trainUnder(
  traffic: LiveTraffic,
  { options, asker, say }: ExperimentOptions,
): Promise<Training> {
  const { algorithm, steps, settings, seed } = options;
  return train(asker.client, { algorithm, steps, settings, source: 'tasks', seed }, (event) => {
    say(progressLine(event, steps));
    // Next comes the gate, then the swap.
    if (event.type === 'step.completed' && event.step === steps) traffic.thicken();
  });
}
