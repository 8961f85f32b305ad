/**
 * The real trainer process, forked as the server forks it, with a tiny random policy. What could
 * silently break: a part that is not wired, a candidate that does not load, a kill or cancel that
 * leaves half a policy behind.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { releasedCodeStepEntropy, tokenEntropy } from '../core/arpo/entropy.ts';
import { quiet } from '../core/log.ts';
import { loadAdapter, textDirectory } from '../core/model/lora-directory.ts';
import { loadPolicyModel } from '../core/model/policy-directory.ts';
import { builtModule } from '../core/paths.ts';
import type { Task } from '../core/records.ts';
import { loadText } from '../core/text/load-text.ts';
import { directorySha256 } from '../core/trainer/candidate.ts';
import { trainerStarter } from '../core/trainer/start-trainer.ts';
import type { TrainerEvent, TrainingJob } from '../core/trainer/types.ts';
import { wholeRowLogits } from '../test/parity/whole-row.ts';
import { writeRandomPolicy } from './testing/random-policy.ts';

let root: string;
let base: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'ramify-trainer-'));
  base = join(root, 'base');
  writeRandomPolicy(base);
});
afterAll(() => rmSync(root, { recursive: true }));

function tasks(split: Task['split']): Task[] {
  return Array.from({ length: 6 }, (_, i) => ({
    id: `${split}_${i}`,
    family: 'math',
    split,
    question: `what is ${i} plus ${i}`,
    truths: [String(2 * i)],
    verifier: 'math',
    tools: ['search', 'javascript'],
    metadata: {},
  }));
}

function job(name: string, change: Partial<TrainingJob> = {}): TrainingJob {
  return {
    runId: 'trn_process',
    algorithm: 'arpo',
    steps: 2,
    settings: { groupSize: 4, promptsPerStep: 2, maxTokens: 16, gateTasks: 20 },
    seed: 3,
    baseVersion: 1,
    baseDirectory: base,
    candidateDirectory: join(root, 'policies', name),
    trainTasks: tasks('train'),
    gateTasks: tasks('gate'),
    threads: 1,
    ...change,
  };
}

/** Starts a job; `onEvent` sees each event and may act on the run. */
function start(aJob: TrainingJob, onEvent: (event: TrainerEvent) => void = () => undefined) {
  const events: TrainerEvent[] = [];
  const module = builtModule(import.meta.url, './trainer-process.ts');
  const handle = trainerStarter({ module, logger: quiet })(aJob, (event) => {
    events.push(event);
    onEvent(event);
  });
  return { handle, events };
}

/** The directory that a whole run leaves. */
async function candidateOf(aJob: TrainingJob): Promise<string> {
  const { handle, events } = start(aJob);
  const { outcome, detail } = await handle.done;
  expect({ outcome, detail }).toMatchObject({ outcome: 'completed' });
  const last = events.at(-1);
  return last?.type === 'candidate' ? last.directory : '';
}

const policies = (): string[] =>
  existsSync(join(root, 'policies')) ? readdirSync(join(root, 'policies')) : [];

describe('the trainer process', () => {
  it('runs a job from start to candidate', async () => {
    const { handle, events } = start(job('whole'));
    const { outcome, detail } = await handle.done;
    expect({ outcome, detail }).toMatchObject({ outcome: 'completed' });
    expect(events.map((event) => event.type)).toEqual([
      'started',
      'rollouts',
      'rollouts',
      'step',
      'rollouts',
      'rollouts',
      'step',
      'candidate',
    ]);
    const rollouts = events.find((event) => event.type === 'rollouts');
    // Typed arrays cross the border as such.
    expect(rollouts?.steps.find((step) => step.kind === 'policy')).toMatchObject({
      tokens: expect.any(Uint32Array),
      logprobs: expect.any(Float32Array),
    });
    const last = events.at(-1);
    const candidate = last?.type === 'candidate' ? last : null;
    const directory = candidate?.directory ?? '';
    expect(candidate?.sha256).toBe(await directorySha256(directory));
    expect(loadText(directory).protocol.name).toBe('tags');
    const { config, weights } = loadPolicyModel(directory);
    const before = loadPolicyModel(base);
    expect(config).toEqual(before.config);
    for (const [name, { data }] of before.weights) {
      expect(weights.get(name)?.data.length).toBe(data.length);
    }
  });

  it('measures the entropy of the released code in its engine when the run branches by it', async () => {
    const settings = { ...job('').settings, entropy: 'released-code', entropyTokens: 5 };
    const { handle, events } = start(job('released', { settings, steps: 1 }));
    expect(await handle.done).toMatchObject({ outcome: 'completed' });
    const model = loadPolicyModel(base);
    const { vocabulary } = model.config;
    let measured = 0;
    for (const event of events) {
      if (event.type !== 'rollouts') continue;
      const byId = new Map(event.steps.map((step) => [step.id, step]));
      for (const { kind, parentId, tokens, stepEntropy, entropies } of event.steps) {
        const prompt = byId.get(parentId ?? '');
        if (kind !== 'policy' || prompt?.kind !== 'prompt') continue;
        const logits = await wholeRowLogits(model, [...prompt.tokens, ...tokens]);
        const rows = Array.from(tokens.subarray(0, 5), (_, t) => {
          const at = (prompt.tokens.length + t - 1) * vocabulary;
          const powers = Array.from(logits.subarray(at, at + vocabulary), Math.exp);
          const mass = powers.reduce((sum, power) => sum + power, 0);
          return powers.map((power) => power / mass);
        });
        expect(stepEntropy).toBeCloseTo(releasedCodeStepEntropy(rows, vocabulary), 4);
        // What is stored of the tokens is over the whole vocabulary all the same.
        rows.forEach((row, t) => expect(entropies?.[t]).toBeCloseTo(tokenEntropy(row), 3));
        measured++;
      }
    }
    expect(measured).toBeGreaterThan(3);
  });

  it('trains a new adapter over the base, and then that adapter on', async () => {
    const settings = { ...job('').settings, training: 'lora', loraRank: 2, learningRate: 0.01 };
    const first = await candidateOf(job('lora-1', { settings }));
    // The text files and the frozen weights stay in the base, which lies elsewhere.
    expect(readdirSync(first).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
    expect(loadText(textDirectory(first)).protocol.name).toBe('tags');
    const made = loadAdapter(first);
    expect(made.baseDirectory).toBe(realpathSync(base));
    expect(made.adapter.config).toMatchObject({ rank: 2, alpha: 32, targets: 'all-linear' });

    // An adapter that brings its tokenizer hands it on.
    for (const name of ['tokenizer.json', 'tokenizer_config.json', 'ramify.json']) {
      cpSync(join(base, name), join(first, name));
    }
    const second = await candidateOf(
      job('lora-2', {
        baseDirectory: first,
        baseKind: 'lora',
        settings: { ...job('').settings, learningRate: 0.01 },
      }),
    );
    expect(readdirSync(second)).toContain('tokenizer.json');
    const continued = loadAdapter(second);
    expect(continued.baseKey).toBe(made.baseKey);
    expect(continued.adapter.config).toEqual(made.adapter.config);
    // A random policy earns nothing to learn from; what was drawn for the first run is still there.
    expect(continued.adapter.weights).toEqual(made.adapter.weights);
  });

  it('fails with the code of a broken base policy', async () => {
    const { handle, events } = start(job('broken', { baseDirectory: join(root, 'nowhere') }));
    expect((await handle.done).outcome).toBe('failed');
    expect(events).toMatchObject([{ type: 'failed', code: 'policy_invalid' }]);
  });

  it('refuses a run that cannot fit the memory, by name', async () => {
    const { handle, events } = start(job('large', { memoryBytes: 1_000 }));
    expect((await handle.done).outcome).toBe('failed');
    const message = expect.stringContaining('memoryBytes 1000 is too small');
    expect(events).toMatchObject([{ type: 'failed', code: 'invalid_request', message }]);
  });

  it('is cancelled in the middle of a run and leaves no policy', async () => {
    const { handle, events } = start(job('cancelled', { steps: 1_000 }), (event) => {
      if (event.type === 'step' && event.step === 1) handle.cancel();
    });
    expect(await handle.done).toEqual({ outcome: 'cancelled', detail: 'cancelled' });
    expect(events.at(-1)?.type).toBe('cancelled');
    expect(policies().filter((name) => name.includes('cancelled'))).toEqual([]);
  });

  it('is killed in the middle of a run and leaves no policy', async () => {
    const { handle } = start(job('killed', { steps: 1_000 }), (event) => {
      if (event.type === 'step' && event.step === 1) process.kill(handle.pid as number, 'SIGKILL');
    });
    expect(await handle.done).toMatchObject({ outcome: 'died', detail: 'SIGKILL' });
    expect(policies().filter((name) => name.includes('killed'))).toEqual([]);
  });
});
