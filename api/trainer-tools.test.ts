/**
 * Declared tools in the real trainer process: those without effects can be in a task, the others
 * are refused as all tools with effects are.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { quiet } from '../core/log.ts';
import { builtModule, packageRoot } from '../core/paths.ts';
import type { Task } from '../core/records.ts';
import { trainerStarter } from '../core/trainer/start-trainer.ts';
import { writeHermesPolicy } from '../test/support/hermes-policy.ts';

let root: string;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'ramify-trainer-tools-'));
  writeHermesPolicy(join(root, 'base'));
});
afterAll(() => rmSync(root, { recursive: true }));

/** How a run ends whose tasks name the tool. */
async function train(tool: string): Promise<{ outcome: string; detail: string }> {
  const args = ['', join(root, 'tools.json')];
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
      settings: { groupSize: 4, promptsPerStep: 1, maxTokens: 16, gateTasks: 1 },
      ...{ baseVersion: 1, baseDirectory: join(root, 'base') },
      candidateDirectory: join(root, `candidate-${tool}`),
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
