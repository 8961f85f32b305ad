/**
 * The command line as processes on real data folders: a live answer of a real server is exported,
 * scored and imported elsewhere; a short run is trained, interrupted and resumed; a folder in use
 * is refused to what writes and open to what reads.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { startCommand } from '../support/command-line.ts';
import type { EndedCommand, StartedCommand } from '../support/command-line.ts';
import type { TestServer } from '../support/server-process.ts';
import { call, fixture, withStores } from './fixture.ts';

const { path, launch } = fixture();
const dataFolder = path('data');

const start = (words: readonly string[], folder: string): StartedCommand =>
  startCommand(...words, '--data', folder, '--device', 'cpu');

const ramify = (words: readonly string[], folder = dataFolder): Promise<EndedCommand> =>
  start(words, folder).ended;

/** Every line of an output is JSON. */
const records = (text: string): ReturnType<typeof JSON.parse>[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

const SMALL = ['groupSize=4', 'promptsPerStep=2', 'gateTasks=20', 'maxTokens=64'].flatMap((set) => [
  '--set',
  set,
]);

let server: TestServer;
let trajectoryId: string;
beforeAll(async () => {
  server = await launch({ dataFolder }).ready();
  const body = { input: 'What is the capital of France?', tools: ['search'], seed: 1 };
  const run = await call(server, 'POST', '/v1/agent/runs', body);
  trajectoryId = run.body.trajectory_id;
  const rated = { trajectory_id: trajectoryId, metric_name: 'reward', value: 0.5 };
  expect((await call(server, 'POST', '/v1/feedback', rated)).status).toBe(200);
});

describe('beside a running server', () => {
  it('what writes is refused in one line', async () => {
    const file = path('tasks.jsonl');
    writeFileSync(file, '{"question":"1+1?"}\n');
    for (const words of [['train'], ['import', file]]) {
      const { code, out, err } = await ramify(words);
      expect({ code, out }).toEqual({ code: 1, out: '' });
      expect(err).toMatch(/^ramify: the data folder .* is in use by a server[^\n]*\n$/);
    }
  });

  it('replay scores the live tokens with no drift to speak of', async () => {
    const { code, out } = await ramify(['replay', '--source', 'live', '--json', '--tokens']);
    expect(code).toBe(0);
    const [score, summary] = records(out);
    expect(score).toMatchObject({
      object: 'replay.score',
      trajectory_id: trajectoryId,
      version: 1,
    });
    expect(score.tokens).toBeGreaterThan(10);
    expect(score.max_drift).toBeLessThanOrEqual(1e-4);
    const figures = score.steps.flatMap((step: { logprobs: number[] }) => step.logprobs);
    expect(figures).toHaveLength(score.tokens);
    expect(summary).toMatchObject({ object: 'replay.summary', trajectories: 1 });
    expect(summary.max_drift).toBe(score.max_drift);
  });

  it('replay draws anew from the log, and saves only when the folder is its own', async () => {
    const words = ['replay', trajectoryId, '--mode', 'resample', '--samples', '3', '--json'];
    const one = await ramify(words);
    const again = await ramify(words);
    const drawn = (text: string) =>
      records(text).map(({ answer, steps }) => ({
        answer,
        texts: steps.map((step: { text: string }) => step.text),
      }));
    expect(one.code).toBe(0);
    expect(drawn(one.out)).toHaveLength(3);
    expect(drawn(again.out)).toEqual(drawn(one.out));
    for (const { source, saved } of records(one.out)) {
      expect({ source, saved }).toEqual({ source: 'replay', saved: false });
    }
    expect((await ramify([...words, '--save'])).code).toBe(1);
  });

  it('exports everything; an import elsewhere exports the same bytes, and can be repeated', async () => {
    const [file, other] = [path('all.jsonl.gz'), path('other')];
    expect((await ramify(['export', file])).code).toBe(0);
    const first = await ramify(['import', file, '--json'], other);
    expect(records(first.out)).toMatchObject([{ created: 1, known: 0, feedback: 1 }]);
    const second = await ramify(['import', file, '--json'], other);
    expect(records(second.out)).toMatchObject([{ created: 0, known: 1, feedback: 0 }]);
    const { out } = await ramify(['export'], other);
    expect(out).toBe(gunzipSync(readFileSync(file)).toString());
    const [line] = records(out);
    expect(line).toMatchObject({ id: trajectoryId, reward: 0.5, source: 'live' });
    await withStores(other, (stores) => {
      expect(stores.trajectories.get(trajectoryId).trajectory.reward).toBe(0.5);
    });
  });

  it('exports chat messages, and nothing that does not fit the filter', async () => {
    const { out } = await ramify(['export', '--format', 'openai']);
    const [{ messages }] = records(out);
    expect(messages[0]).toEqual({ role: 'user', content: 'What is the capital of France?' });
    const [asked, told] = messages.slice(1);
    expect(asked.tool_calls[0].function.name).toBe('search');
    expect(told).toMatchObject({ role: 'tool', tool_call_id: asked.tool_calls[0].id });
    for (const filter of [
      ['--source', 'rollout'],
      ['--reward-min', '0.6'],
      ['--until', '1h'],
    ]) {
      expect(await ramify(['export', ...filter])).toMatchObject({ code: 0, out: '' });
    }
  });

  it('eval answers tasks, by family, with intervals, and leaves no trace', async () => {
    const words = ['eval', '--limit', '6', '--samples', '2', '--json'];
    const { code, out } = await ramify(words);
    expect(code).toBe(0);
    const rows = records(out);
    expect(rows.map(({ family }) => family)).toEqual(['all', 'deep-search', 'knowledge', 'math']);
    const [all] = rows;
    expect(all).toMatchObject({ version: 1, tasks: 6, samples: 2 });
    for (const { mean, low, high } of [all.greedy.accuracy, all.sampled.accuracy, all.pass_at_k]) {
      expect(low).toBeLessThanOrEqual(mean);
      expect(high).toBeGreaterThanOrEqual(mean);
    }
    expect(all.pass_at_k.mean).toBeGreaterThanOrEqual(all.sampled.accuracy.mean);
    expect((await ramify(words)).out).toBe(out);
    expect((await ramify(['export', '--source', 'eval'])).out).toBe('');
  });
});

describe('train', () => {
  const folder = path('trained');

  it('is interrupted by Ctrl-C, resumed, and its candidate is registered and judged', async () => {
    const { child, ended } = start(['train', '--steps', '2', '--seed', '1', ...SMALL], folder);
    const kept = (): string[] => readdirSync(folder, { recursive: true }).map(String);
    await expect
      .poll(() => kept().some((name) => /checkpoints.*step-/.test(name)), { timeout: 45_000 })
      .toBe(true);
    child.kill('SIGINT');
    const { code, out } = await ended;
    expect(code).toBe(130);
    expect(out).toContain('interrupted');

    const resumed = await ramify(['train', '--resume', '--json'], folder);
    const events = records(resumed.out);
    const steps = events.filter(({ type }) => type === 'step.completed');
    expect(steps.map(({ step }) => step)).toEqual([1, 2]);
    const run = events.at(-1);
    expect(run).toMatchObject({ object: 'training.run', progress: { step: 2, steps: 2 } });
    expect(run.candidate_version).toBe(2);
    expect(resumed.code).toBe(run.status === 'completed' ? 0 : 3);
    await withStores(folder, ({ policies, trajectories }) => {
      const wanted = run.status === 'completed' ? 'active' : 'rejected';
      expect(policies.get(2)).toMatchObject({ status: wanted, sourceRunId: run.id });
      expect(trajectories.list({ trainingRunId: run.id }, { limit: 100 }).items).toHaveLength(16);
    });
    expect((await ramify(['train', '--resume'], folder)).code).toBe(2);
  });

  it('rollouts survive an export and an import, shared steps and all', async () => {
    const [other, file] = [path('copy'), path('rollouts.jsonl')];
    const { code } = await ramify(['export', file, '--source', 'rollout'], folder);
    expect(code).toBe(0);
    await ramify(['import', file], other);
    expect((await ramify(['export'], other)).out).toBe(readFileSync(file, 'utf8'));
  });
});

describe('mistakes', () => {
  it.each([
    [['train', '--steps', '0'], '--steps 0: must be an integer from 1 to 10000'],
    [['train', '--set', 'groupSize'], '--set groupSize: must be NAME=VALUE'],
    [['train', '--set', 'groupSiez=4'], "unknown setting 'groupSiez'"],
    [['train', '--resume', '--seed', '1'], '--seed: a run that is resumed'],
    [['eval', '--version', '9'], 'no policy has the version 9'],
    [['eval', '--mode', 'greedy', '--samples', '2'], '--samples: nothing is sampled'],
    [['eval', '--family', 'chess'], 'no task of split test and family chess'],
    [['replay', 'traj_x'], 'no trajectory has the id traj_x'],
    [['replay', '--save'], '--save does nothing with --mode score'],
    [['replay', '--mode', 'resample'], 'resample needs the ID'],
    [['export', '--format', 'csv'], '--format csv: must be one of ramify, openai'],
    [['export', '--since', 'monday'], '--since monday: must be a date'],
    [['export', 'a', 'b'], 'b: one word too many'],
    [['export', '--sorce', 'live'], "Unknown option '--sorce'"],
    [['import'], 'import needs a FILE'],
  ])('%j is refused with exit code 2', async (words, message) => {
    const folder = words[0] === 'train' || words[0] === 'import' ? path('none') : dataFolder;
    const { code, out, err } = await ramify(words, folder);
    expect(err).toContain(message);
    expect({ code, out }).toEqual({ code: 2, out: '' });
  });

  it('a wrong line of a file is told by its number, and with --json as JSON', async () => {
    const file = path('wrong.jsonl');
    writeFileSync(file, '\n{"object":"trajectory","format":1,"steps":[]}\n');
    const { code, err } = await ramify(['import', file, '--json'], path('fresh'));
    expect(code).toBe(2);
    const [{ error }] = records(err);
    expect(error.code).toBe('invalid_request');
    expect(error.message).toContain(`${file}: line 2: `);
  });

  it('reading a folder that has no database says so, and makes none', async () => {
    const folder = path('empty');
    const { code, err } = await ramify(['export'], folder);
    expect(code).toBe(1);
    expect(err).toBe(`ramify: there is no database ${join(folder, 'ramify.db')}\n`);
    expect(() => readdirSync(folder)).toThrow('ENOENT');
  });

  it('--help says how to call each command', async () => {
    for (const name of ['train', 'eval', 'replay', 'export', 'import', 'doctor']) {
      const { code, out } = await ramify([name, '--help']);
      expect(code).toBe(0);
      expect(out).toMatch(new RegExp(`^npx ramify ${name} `));
    }
  });
});
