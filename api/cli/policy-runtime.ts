/**
 * A policy version of a data folder, ready to answer: the server's engine, text layer and tools,
 * loaded for one version and ended with the work.
 */
import { systemClock } from '../../core/clock.ts';
import type { EpisodeContext } from '../../core/agent/types.ts';
import { AppError } from '../../core/errors.ts';
import { idGenerator } from '../../core/ids.ts';
import type { Logger } from '../../core/log.ts';
import type { Sampler } from '../../core/ports.ts';
import type { PolicyRecord } from '../../core/records.ts';
import type { PolicyStore } from '../../db/policy-store.ts';
import type { Config } from '../config.ts';
import { collectionsFile, storedCollections } from '../own-tools.ts';
import { policyText, runCleanups, startEngine, startTools, takeDevice } from '../parts.ts';
import type { Cleanup } from '../parts.ts';
import { integer } from './command.ts';

export interface PolicyRuntime {
  policy: PolicyRecord;
  sampler: Sampler;
  context: EpisodeContext;
}

/** @throws AppError policy_invalid, engine_unavailable, config_invalid (device). */
export async function withPolicy<T>(
  options: { policy: PolicyRecord; config: Config; logger: Logger },
  work: (runtime: PolicyRuntime) => Promise<T>,
): Promise<T> {
  const { policy, config, logger } = options;
  const cleanups: Cleanup[] = [];
  try {
    const text = policyText(policy.path);
    const collections = storedCollections(collectionsFile(config.dataFolder), cleanups);
    const tools = await startTools(config, collections, logger, cleanups);
    const device = await takeDevice(config, logger);
    const sampler = await startEngine(config, device, logger, cleanups);
    await sampler.load(policy.version, policy.path);
    const context = { ...text, tools, clock: systemClock, newId: idGenerator(systemClock) };
    return await work({ policy, sampler, context });
  } finally {
    await runCleanups(cleanups, logger);
  }
}

/** The version that a flag names, or else the live one. @throws AppError policy_not_found */
export function chosenPolicy(policies: PolicyStore, flag: string | undefined): PolicyRecord {
  if (flag !== undefined) return policies.get(integer('--version', flag, 1, 999_999_999));
  const active = policies.active();
  if (active !== null) return active;
  throw new AppError('policy_not_found', 'no policy is live in this data folder yet');
}
