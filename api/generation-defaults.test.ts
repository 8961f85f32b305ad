/**
 * What a policy's generation_config.json says holds where a request says nothing, and only there.
 */
import { afterEach, expect, test } from 'vitest';
import { startHarness, type Harness } from './testing/harness.ts';

let h: Harness;
afterEach(() => h.close());

const STATED = {
  do_sample: true,
  temperature: 0.6,
  top_p: 0.9,
  top_k: 20,
  min_p: 0.05,
  repetition_penalty: 1.1,
  max_new_tokens: 5,
};
const messages = [{ role: 'user', content: 'Capital of France?' }];

async function sampled(fields: object) {
  const body = { model: 'ramify', messages, seed: 3, ...fields };
  const answer = await h.call('createChatCompletion', { body });
  expect(answer.status).toBe(200);
  const id = answer.headers.get('x-ramify-trajectory') as string;
  const step = h.deps.stores.trajectories.get(id).steps.find(({ kind }) => kind === 'policy');
  return { sampling: step?.sampling, tokens: step?.tokens.length, body: answer.body };
}

test('a chat completion that says nothing is sampled as the makers of the policy say', async () => {
  h = await startHarness({ generation: STATED });
  const { sampling, tokens, body } = await sampled({});
  expect(sampling).toEqual({
    temperature: 0.6,
    topP: 0.9,
    topK: 20,
    minP: 0.05,
    repetitionPenalty: 1.1,
    seed: 3,
  });
  expect(tokens).toBe(5);
  expect(body.choices[0].finish_reason).toBe('length');
});

test('what a request says comes first', async () => {
  h = await startHarness({ generation: STATED });
  const said = { temperature: 0, top_p: 1, top_k: 0, max_tokens: 3 };
  const { sampling, tokens } = await sampled(said);
  expect(sampling).toMatchObject({ temperature: 0, topP: 1, topK: 0, minP: 0.05 });
  expect(tokens).toBe(3);
  const { tokens: more } = await sampled({ max_completion_tokens: 8 });
  expect(more).toBe(8);
});

test('an agent run is sampled so too, but its length is the run’s matter', async () => {
  h = await startHarness({ generation: STATED });
  const run = await h.call('createAgentRun', { body: { input: 'Capital of France?', seed: 4 } });
  expect(run.body.status).toBe('completed');
  const { steps } = h.deps.stores.trajectories.get(run.body.trajectory_id as string);
  const step = steps.find(({ kind }) => kind === 'policy');
  expect(step?.sampling).toMatchObject({ temperature: 0.6, topK: 20, seed: 4 });
  expect(step?.tokens.length).toBeGreaterThan(5);
});

test('without such a statement sampling is neutral', async () => {
  h = await startHarness();
  const { sampling, tokens } = await sampled({});
  expect(sampling).toEqual({ temperature: 1, topP: 1, topK: 0, seed: 3 });
  expect(tokens).toBeGreaterThan(5);
});
