/**
 * Tools of the server in the real trainer process: collections, and declared tools, of which those
 * without effects can be in a task and the others are refused as all tools with effects are.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { systemClock } from '../core/clock.ts';
import { quiet } from '../core/log.ts';
import { builtModule, packageRoot } from '../core/paths.ts';
import type { Task } from '../core/records.ts';
import { trainerStarter } from '../core/trainer/start-trainer.ts';
import { openCollections, readCollections } from '../db/collection-store.ts';
import { writeHermesPolicy } from '../test/support/hermes-policy.ts';

let root: string;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'ramify-trainer-tools-'));
  writeHermesPolicy(join(root, 'base'));
  const shipped = join(root, 'shipped.jsonl');
  writeFileSync(shipped, '{"id":"1","title":"France","text":"Paris."}\n');
  const store = openCollections(join(root, 'collections.db'), shipped, systemClock);
  store.upsert('notes', [{ id: 'a', title: 'Ada', text: 'She likes oak.' }]);
  store.close();
});
afterAll(() => rmSync(root, { recursive: true }));

/** How a run ends whose tasks name the tool. */
async function train(tool: string): Promise<{ outcome: string; detail: string }> {
  const args = [join(root, 'collections.db'), join(root, 'tools.json')];
  const odd = join(packageRoot, 'core/tools/mcp/testing/odd-server.mjs');
  const server = { name: 'odd', command: process.execPath, args: [odd] };
  const hanging = { ...server, name: 'hanging', args: [odd, 'silent'] };
  const mcp = [{ ...server, effects: { echo_env: 'none' } }, hanging];
  writeFileSync(join(root, 'tools.json'), JSON.stringify({ mcp }));
  const task = (split: Task['split']): Task => ({
    ...{ id: split, family: 'math', split, question: 'what is 1 plus 1', truths: ['2'] },
    ...{ verifier: 'math', tools: [tool], metadata: {} },
  });
  const module = builtModule(import.meta.url, './trainer-process.ts');
  const handle = trainerStarter({ module, args, logger: quiet })(
    {
      ...{ runId: 'trn_tools', algorithm: 'arpo', steps: 1, seed: 3, threads: 1 },
      settings: { groupSize: 4, promptsPerStep: 1, maxTokens: 16, gateTasks: 20 },
      ...{ baseVersion: 1, baseDirectory: join(root, 'base') },
      candidateDirectory: join(root, `candidate-${tool}`),
      checkpointDirectory: join(root, tool, 'steps'),
      ...{ trainTasks: [task('train')], gateTasks: [task('gate')] },
    },
    () => undefined,
  );
  return handle.done;
}

it('trains on a task with a tool that is declared to have no effects', async () => {
  expect(await train('odd__echo_env')).toMatchObject({ outcome: 'completed' });
});

it('refuses one that has effects for all that is known, and does not wait for its server', async () => {
  const startedAt = performance.now();
  const { outcome, detail } = await train('odd__refuse');
  expect({ outcome, detail }).toMatchObject({
    outcome: 'failed',
    detail: expect.stringContaining("has effects 'writes'"),
  });
  expect(performance.now() - startedAt).toBeLessThan(20_000);
});

it('searches the collections as they were when the run began', async () => {
  expect(await train('search_notes')).toMatchObject({ outcome: 'completed' });
  const copy = readCollections(join(root, 'search_notes', 'collections.db'), systemClock);
  expect(copy?.index('notes').search('oak', 1)).toMatchObject([{ id: 'a' }]);
  copy?.close();
});
