/**
 * Live conversations with feedback, as clients would have them: each question is asked as an agent
 * run, and what the client thinks of the answer is posted as a reward: 1 for a right one, 0 for a
 * wrong one. A share of the clients can be made to say the opposite. The truths stay here.
 */
import { mapBounded } from '../../core/arpo/concurrency.ts';
import { mean } from '../../core/arpo/number.ts';
import { mix, uniform } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';
import { askAgent } from '../demo/agent-question.ts';
import type { HttpClient } from '../demo/http-client.ts';

/** Conversations under way at once. */
const CONCURRENCY = 8;
/** Sets the draw of who inverts apart from the sampling. */
const INVERT = 0x696e76;

export interface PlayOptions {
  seed: number;
  /** Share of conversations whose feedback says the opposite. */
  invert: number;
}

export interface Played {
  conversations: number;
  /** Rewards of 1. */
  liked: number;
  inverted: number;
  accuracy: number;
}

/** Asks every question once and rates the answers. The first failed request ends it. */
export async function play(
  client: HttpClient,
  tasks: readonly Task[],
  { seed, invert }: PlayOptions,
): Promise<Played> {
  const played = await mapBounded(
    tasks,
    CONCURRENCY,
    async (task, i) => {
      const { correct, trajectoryId } = await askAgent(client, task, mix(seed, i));
      const inverted = uniform(seed, i, INVERT) < invert;
      const liked = correct !== inverted;
      await client.createFeedback({
        trajectory_id: trajectoryId,
        metric_name: 'reward',
        value: Number(liked),
      });
      return { correct, liked, inverted };
    },
    () => undefined,
  );
  return {
    conversations: played.length,
    liked: played.filter(({ liked }) => liked).length,
    inverted: played.filter(({ inverted }) => inverted).length,
    accuracy: mean(played.map(({ correct }) => Number(correct))),
  };
}

export interface Accuracy {
  sampled: number;
  greedy: number;
}

/** Held-out accuracy of the live policy; no feedback is given. The same seed pairs two of them. */
export async function examine(
  client: HttpClient,
  tasks: readonly Task[],
  seed: number,
): Promise<Accuracy> {
  const share = async (temperature: number): Promise<number> => {
    const answers = await mapBounded(
      tasks,
      CONCURRENCY,
      (task, i) => askAgent(client, task, mix(seed, i), temperature),
      () => undefined,
    );
    return mean(answers.map(({ correct }) => Number(correct)));
  };
  return { sampled: await share(1), greedy: await share(0) };
}
