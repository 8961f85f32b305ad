/** How a LocalEngine is set up, with the bounds of core/limits.ts where nothing else is said. */
import { systemClock, type Clock } from '../clock.ts';
import { LIMITS } from '../limits.ts';
import type { AdapterPolicy } from '../model/lora-directory.ts';
import type { ServedModel } from '../model/policy-directory.ts';
import type { TokenBytes } from '../text/token-mask.ts';
import type { PolicySessionOptions } from './policy-sessions.ts';

export interface LocalEngineOptions extends PolicySessionOptions {
  batchRowsMax?: number;
  sequencesMax?: number;
  queueMax?: number;
  chunkTokens?: number;
  /** Turns after which a request that was left out goes first once. */
  agingTurns?: number;
  /** Memory for keys and values; null: a quarter of what is free when the engine is made. */
  kvBytesMax?: number | null;
  /**
   * Whether prefixes are shared between sequences; without, only forks share. `equal`: prompts that
   * wait in one turn and go on from one cache with the same tokens are computed once. So what a
   * sequence holds is, to the bit, what it would have computed, and no result depends on timing.
   */
  prefixCache?: boolean | 'equal';
  clock?: Clock;
}

/** `vocabulary` is asked for by the first constraint or stop text. */
export type EnginePolicy = (ServedModel | AdapterPolicy) & { vocabulary?: () => TokenBytes };

export type EngineOptions = Required<LocalEngineOptions>;

export function withDefaults(options: LocalEngineOptions): EngineOptions {
  return {
    dtype: 'f32',
    entropyCandidates: 0,
    largeBytes: LIMITS.largeModelBytes,
    spinning: false,
    profile: null,
    memoryPattern: true,
    batchRowsMax: LIMITS.batchRowsMax,
    sequencesMax: LIMITS.sequencesMax,
    queueMax: LIMITS.sampleQueueMax,
    chunkTokens: LIMITS.chunkTokens,
    agingTurns: LIMITS.agingTurns,
    kvBytesMax: null,
    prefixCache: true,
    clock: systemClock,
    ...options,
  };
}
