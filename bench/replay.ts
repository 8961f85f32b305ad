/**
 * `npm run bench:replay`: is what the log says still true? Logs 1,000 trajectories of the embedded
 * policy with its tools, reads them back and scores every sampled token under the version that made
 * it, by the engine that serves: how far are the log-probabilities from the logged ones, and how
 * many tokens a second are scored. `--count N` for another number. Fails above 1e-4.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { policyText, runCleanups } from '../api/parts.ts';
import type { Cleanup } from '../api/parts.ts';
import { scoreSequence } from '../core/agent/replay.ts';
import { runAgent } from '../core/agent/run-agent.ts';
import { mapBounded } from '../core/arpo/concurrency.ts';
import { systemClock } from '../core/clock.ts';
import { startPolicyEngine } from '../core/engine/policy-engine.ts';
import { AppError } from '../core/errors.ts';
import { idGenerator } from '../core/ids.ts';
import { quiet } from '../core/log.ts';
import { packageRoot } from '../core/paths.ts';
import { DEFAULT_TENANT } from '../core/records.ts';
import { javascriptTool } from '../core/tools/javascript-tool.ts';
import { createToolRegistry } from '../core/tools/registry.ts';
import { searchTool } from '../core/tools/search-tool.ts';
import { openDatabase } from '../db/open.ts';
import { openSearchIndex } from '../db/search-index.ts';
import { openStores } from '../db/stores.ts';
import { printTable, recordResults, secondsOf } from './report.ts';

const AT_ONCE = 64;
const DRIFT_MAX = 1e-4;
const VERSION = 1;

const { values } = parseArgs({ options: { count: { type: 'string' } } });
const count = Number(values.count ?? 1_000);
const threads = availableParallelism();
const folder = mkdtempSync(join(tmpdir(), 'ramify-replay-'));
const cleanups: Cleanup[] = [() => rmSync(folder, { recursive: true })];
try {
  const stores = openStores(openDatabase(join(folder, 'ramify.db')));
  cleanups.push(() => stores.close());
  const engine = await startPolicyEngine({ threads, device: 'cpu', logger: quiet });
  cleanups.push(() => engine.stop());
  const directory = join(packageRoot, 'policies', 'embedded');
  await engine.load(VERSION, directory);
  const text = policyText(directory);
  const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
  const javascript = javascriptTool();
  cleanups.push(() => javascript.stop());
  const own = [searchTool(index), javascript];
  const tools = createToolRegistry(own, { clock: systemClock, log: quiet });
  const context = { ...text, tools, clock: systemClock, newId: idGenerator(systemClock) };

  const log = async (question: string, seed: number): Promise<string> => {
    const sequence = engine.open({ policyVersion: VERSION, priority: 'rollout' });
    try {
      const outcome = await runAgent(context, {
        sequence,
        messages: [{ role: 'user', content: question }],
        toolNames: ['search', 'javascript'],
        limits: { maxToolCalls: 4, maxTokens: 512 },
        sampling: { temperature: 1, topP: 1, topK: 0, seed },
        ...{ source: 'live', tenant: DEFAULT_TENANT, conversationId: null, taskId: null },
      });
      await stores.stepLog.append(outcome.log);
      return outcome.trajectoryId;
    } finally {
      sequence.close();
    }
  };
  const score = async (id: string) => {
    const { steps } = stores.trajectories.get(id);
    const sequence = engine.open({ policyVersion: VERSION, priority: 'evaluation' });
    try {
      const { vocabularySize: vocabulary } = text.tokenizer;
      const { signal } = new AbortController();
      return await scoreSequence(sequence, steps, { vocabulary, signal });
    } finally {
      sequence.close();
    }
  };

  let ids: string[] = [];
  const asked = questions(count);
  const sampling = await secondsOf(async () => {
    ids = await mapBounded(asked, AT_ONCE, log, () => undefined);
  });
  let scores: Awaited<ReturnType<typeof score>>[] = [];
  const scoring = await secondsOf(async () => {
    scores = await mapBounded(ids, AT_ONCE, score, () => undefined);
  });
  const tokens = scores.reduce((sum, one) => sum + one.tokens, 0);
  const maxDrift = Math.max(...scores.map((one) => one.maxDrift));
  const meanDrift = scores.reduce((sum, one) => sum + one.meanDrift * one.tokens, 0) / tokens;
  const row = {
    trajectories: ids.length,
    'sampled tokens': tokens,
    'max drift': maxDrift.toExponential(2),
    'mean drift': meanDrift.toExponential(2),
    'sampled/s': tokens / sampling,
    'scored/s': tokens / scoring,
  };
  printTable([row]);
  recordResults('replay', { repeats: 1, threads }, [row]);
  if (!(maxDrift <= DRIFT_MAX)) {
    throw new AppError('internal', `a drift of ${maxDrift} is above ${DRIFT_MAX}`);
  }
} finally {
  await runCleanups(cleanups, quiet);
}

/** Of the shipped tasks, over and over. */
function questions(wanted: number): string[] {
  const lines = readFileSync(join(packageRoot, 'corpus', 'tasks', 'test.jsonl'), 'utf8');
  const all = lines
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { question: string }).question);
  return Array.from({ length: wanted }, (_, i) => all[i % all.length] as string);
}
