/**
 * The trainer process: everything that a training run needs, put together, then
 * core/trainer/train.ts. The server forks it (core/trainer/start-trainer.ts) and sends one job;
 * nothing here opens the server's database, so a crash at any point costs the server nothing but
 * the run.
 *
 * Order of starting: a look at the memory, text layer, tools, weights or adapter (the run's own
 * copy), training session, engine; all of it is undone in reverse. Knows nothing of HTTP.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { entropyCandidates } from '../core/arpo/entropy.ts';
import { systemClock } from '../core/clock.ts';
import { createLocalEngine } from '../core/engine/local-engine.ts';
import { idGenerator } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import { quiet } from '../core/log.ts';
import { loadPolicy, textDirectory } from '../core/model/lora-directory.ts';
import { loadText } from '../core/text/load-text.ts';
import type { Emit } from '../core/trainer/job-loop.ts';
import { settingsOf } from '../core/trainer/job-settings.ts';
import { checkMemory } from '../core/trainer/memory-budget.ts';
import { train } from '../core/trainer/train.ts';
import { openTrainedPolicy } from '../core/trainer/trained-policy.ts';
import { runTrainerProcess } from '../core/trainer/trainer-shell.ts';
import type { TrainingJob } from '../core/trainer/types.ts';
import { copyCollections } from '../db/collection-store.ts';
import type { CollectionStore } from '../db/collection-store.ts';
import { connectTools, toolsForTraining } from './declared-tools.ts';
import { startOwnTools, storedCollections } from './own-tools.ts';
import { NO_TOOLS, readToolsFile } from './tools-file.ts';
import type { DeclaredTools } from './tools-file.ts';

async function runJob(job: TrainingJob, emit: Emit, signal: AbortSignal): Promise<void> {
  const clock = systemClock;
  const settings = settingsOf(job);
  checkMemory(loadPolicy(job.baseDirectory).config, settings, job.memoryBytes);
  const { tokenizer, protocol } = loadText(textDirectory(job.baseDirectory));
  const runtime = { device: job.device ?? 'cpu', threads: job.threads };
  const { model, ...trained } = openTrainedPolicy(job, settings, runtime);
  const sampler = await createLocalEngine({
    ...model,
    ...runtime,
    version: job.baseVersion,
    entropyCandidates: entropyCandidates(settings.entropy),
    // Rollouts must not depend on timing, or a run that was interrupted could end otherwise.
    prefixCache: 'equal',
  });
  const cleanups: (() => void | Promise<void>)[] = [];
  try {
    const tools = await startOwnTools(await collectionsOf(job, cleanups), quiet, cleanups);
    const waitMs = LIMITS.mcpConnectTimeoutMs;
    cleanups.push(await connectTools(tools, declaredTools(), { logger: quiet, waitMs }));
    await train(
      job,
      {
        ...trained,
        sampler,
        context: { tokenizer, protocol, tools, clock, newId: idGenerator(clock) },
        clock,
      },
      emit,
      signal,
    );
  } finally {
    for (const cleanup of cleanups.reverse()) await cleanup();
    await sampler.close();
    await trained.session.dispose();
    await trained.reference?.dispose();
  }
}

/**
 * The file of the server is the first argument. A run, also one that is resumed, searches what the
 * collections were when it began: a copy among its files.
 */
async function collectionsOf(
  { checkpointDirectory }: TrainingJob,
  cleanups: (() => void | Promise<void>)[],
): Promise<CollectionStore | null> {
  const [, , file = ''] = process.argv;
  if (!existsSync(file)) return null;
  if (checkpointDirectory === undefined) return storedCollections(file, cleanups);
  const copy = join(dirname(checkpointDirectory), 'collections.db');
  if (!existsSync(copy)) {
    mkdirSync(dirname(copy), { recursive: true });
    await copyCollections(file, copy);
  }
  return storedCollections(copy, cleanups);
}

/** The file is named by the second argument; its secrets are in the environment. */
function declaredTools(): DeclaredTools {
  const [, , , file = ''] = process.argv;
  if (file === '') return NO_TOOLS;
  // A child that is forked with the server's own environment; a job, which has none, may be stored.
  // eslint-disable-next-line no-restricted-properties
  return toolsForTraining(readToolsFile(file, process.env));
}

await runTrainerProcess(runJob);
