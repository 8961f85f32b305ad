/**
 * The sessions that run a set of weights, and their sharing: adapters over one base run on one pair
 * of sessions, which is made with the first of them and goes with the last. A version without an
 * adapter has a pair of its own, whose graphs know nothing of adapters: they are a little faster,
 * and only who uses adapters pays for them.
 */
import { must } from '../assert.ts';
import { LIMITS } from '../limits.ts';
import { decodeGraph, prefillGraph } from '../model/cache-graphs.ts';
import { createSession, type ModelSession, type SessionOptions } from '../model/session.ts';
import { LaneThread } from './lane-thread.ts';
import { createStepSessions } from '../model/step-session.ts';
import { heldWeights, weightBytes } from '../model/stored-weights.ts';
import type { ComputeType, ModelConfig, ModelWeights } from '../model/types.ts';

export interface PolicySessionOptions extends SessionOptions {
  /** From how many bytes of float32 weights on a model counts as large (tests lower it). */
  largeBytes?: number;
  /** What products are computed in; f32 when left out. */
  dtype?: ComputeType;
  /**
   * Over how many of the likeliest tokens a second entropy of every sampled token is measured (a
   * search through the vocabulary a token); 0 when left out: it is not.
   */
  entropyCandidates?: number;
}

export interface PolicySessions {
  prefill: ModelSession;
  decode: ModelSession;
  /** Threads that decode a part of a batch while `decode` runs another; decode-lanes.ts. */
  lanes: readonly LaneThread[];
  dispose(): Promise<void>;
}

export async function createPolicySessions(
  config: ModelConfig,
  given: ModelWeights,
  options: PolicySessionOptions & { adapters: boolean },
): Promise<PolicySessions> {
  const { device, dtype = 'f32', adapters, threads, largeBytes = LIMITS.largeModelBytes } = options;
  const bytes = weightBytes(given);
  if (bytes >= largeBytes && device === 'cpu' && dtype === 'f32') {
    return { ...(await createStepSessions(config, given, options)), lanes: [] };
  }
  // What is small is read, so that a file may be replaced while it is served.
  const weights = bytes >= largeBytes ? given : heldWeights(given);
  const count = laneCount(bytes, options);
  const perLane = Math.floor(threads / count);
  const made: { dispose(): Promise<void> }[] = [];
  const dispose = async () => {
    for (const part of made.splice(0)) await part.dispose();
  };
  const keep = <T extends { dispose(): Promise<void> }>(part: T): T => {
    made.push(part);
    return part;
  };
  try {
    const prefill = keep(
      await createSession(prefillGraph(config, weights, dtype, adapters), options),
    );
    const { entropyCandidates = 0 } = options;
    const decoder = decodeGraph(config, weights, { dtype, adapters, entropyCandidates });
    const decode = keep(await createSession(decoder, { ...options, threads: perLane }));
    const settings = {
      ...{ config, weights, threads: perLane },
      ...{ dtype, adapters, entropyCandidates },
    };
    const lanes: LaneThread[] = [];
    while (lanes.length < count - 1) lanes.push(keep(await LaneThread.start(settings)));
    return { prefill, decode, lanes, dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/**
 * In how many parts a batch is decoded at once. Small products gain little from more threads, which
 * wait for each other at every node; rows are independent. A large model is read once and shared by
 * the threads of one session instead.
 */
function laneCount(bytes: number, { device, threads }: SessionOptions): number {
  if (device !== 'cpu' || threads < 2) return 1;
  return bytes <= LIMITS.laneWeightBytesMax ? Math.min(threads, LIMITS.lanesMax) : 1;
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
      const { prefill, decode, lanes } = await entry.sessions;
      return { prefill, decode, lanes, dispose: () => this.giveBack(key) };
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
