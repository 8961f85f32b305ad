/**
 * The sessions that run a set of weights, and their sharing: adapters over one base run on one pair
 * of sessions, which is made with the first of them and goes with the last. A version without an
 * adapter has a pair of its own, whose graphs know nothing of adapters: they are a little faster,
 * and only who uses adapters pays for them.
 */
import { must } from '../assert.ts';
import { decodeGraph, prefillGraph } from '../model/cache-graphs.ts';
import { createSession, type ModelSession, type SessionOptions } from '../model/session.ts';
import type { ComputeType, ModelConfig, Weights } from '../model/types.ts';

export interface PolicySessionOptions extends SessionOptions {
  /** What products are computed in; f32 when left out. */
  dtype?: ComputeType;
}

export interface PolicySessions {
  prefill: ModelSession;
  decode: ModelSession;
  dispose(): Promise<void>;
}

export async function createPolicySessions(
  config: ModelConfig,
  weights: Weights,
  options: PolicySessionOptions & { adapters: boolean },
): Promise<PolicySessions> {
  const { dtype, adapters } = options;
  const prefill = await createSession(prefillGraph(config, weights, dtype, adapters), options);
  const decode = await createSession(decodeGraph(config, weights, dtype, adapters), options);
  return {
    prefill,
    decode,
    async dispose() {
      await prefill.dispose();
      await decode.dispose();
    },
  };
}

/** Pairs of sessions by key, each alive while someone uses it. */
export class SharedSessions {
  private readonly held = new Map<string, { sessions: Promise<PolicySessions>; users: number }>();

  /** The pair of `key`, made when nobody has it. `dispose` of what is returned gives it back. */
  async take(key: string, make: () => Promise<PolicySessions>): Promise<PolicySessions> {
    const entry = this.held.get(key) ?? { sessions: make(), users: 0 };
    this.held.set(key, entry);
    entry.users++;
    try {
      const { prefill, decode } = await entry.sessions;
      return { prefill, decode, dispose: () => this.giveBack(key) };
    } catch (error) {
      // Nobody else can have got it either; the next one tries again.
      if (this.held.get(key) === entry) this.held.delete(key);
      throw error;
    }
  }

  private async giveBack(key: string): Promise<void> {
    const entry = must(this.held.get(key), 'shared sessions in use');
    entry.users--;
    if (entry.users > 0) return;
    this.held.delete(key);
    await (await entry.sessions).dispose();
  }
}
