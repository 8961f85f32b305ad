/**
 * Prefill: brings the keys and values of prompts into the cache, piece by piece. Blocks that are
 * cached already are taken; each new full block is published at once, so that whoever has the same
 * prefix and comes later, or waits in the same turn, takes it instead of computing it again.
 */
import { LIMITS } from '../limits.ts';
import type { Admission } from './admission.ts';
import type { BatchModel } from './batch-model.ts';
import { BLOCK_TOKENS } from './kv-memory.ts';
import type { LocalSequence } from './local-sequence.ts';
import { planPrefill } from './prefill-plan.ts';
import type { PrefixCache, PrefixTree } from './prefix-cache.ts';
import type { Waiting } from './scheduler.ts';

export interface PrefillJob extends Waiting {
  readonly sequence: LocalSequence;
  /** Whether the prompt has been looked up among the cached prefixes, and what that gave. */
  prefix: 'unknown' | 'hit' | 'miss';
  /** Tokens prefilled for it, and for nobody before. */
  prefilled: number;
}

export interface PrefillTarget {
  readonly model: BatchModel;
  readonly prefixes: PrefixTree;
}

export interface PrefillerOptions {
  prefixes: PrefixCache;
  admission: Admission<PrefillJob>;
  /** Unless true, nothing is published and nothing is taken; see LocalEngineOptions. */
  share: boolean | 'equal';
}

export class Prefiller {
  readonly counts = { prefixHits: 0, prefixMisses: 0, hitTokens: 0, prefilledTokens: 0 };
  private readonly options: PrefillerOptions;

  constructor(options: PrefillerOptions) {
    this.options = options;
  }

  /**
   * The share of one turn: a single piece while others decode, so that those wait no longer than
   * that.
   */
  async run(target: PrefillTarget, jobs: readonly PrefillJob[]): Promise<void> {
    const { admission, share } = this.options;
    for (const job of jobs) this.takeCached(target, job);
    let tokens = jobs.some(isReady) ? LIMITS.prefillTokensMax : LIMITS.prefillTurnTokensMax;
    while (tokens > 0) {
      for (const job of jobs) this.takeCached(target, job);
      const waiting = jobs.filter((job) => !isReady(job));
      const { rows, width, followers } = planPrefill(waiting, tokens, share);
      const fit = target.model.prefillRowsThatFit(rows.map(({ sequence }) => sequence.kv));
      const piece = ({ sequence }: PrefillJob) => Math.min(width, sequence.missing);
      let admitted = admission.admit(rows.slice(0, fit), piece);
      if (admitted.length === 0) admitted = admission.admitOldest(waiting, piece);
      if (admitted.length === 0) return;
      await this.compute(target, admitted, width);
      for (const [leader, others] of followers) {
        if (share === true && !isReady(leader)) continue;
        for (const { sequence } of others) sequence.kv.become(leader.sequence.kv);
      }
      tokens -= admitted.length * width;
    }
  }

  /** Makes the full blocks of a sequence findable. */
  publish({ prefixes }: PrefillTarget, { kv, tokens }: LocalSequence): void {
    if (this.options.share === true) this.options.prefixes.publish(prefixes, kv, tokens);
  }

  private async compute(
    target: PrefillTarget,
    jobs: readonly PrefillJob[],
    width: number,
  ): Promise<void> {
    const rows = jobs.map(({ sequence: { kv, tokens } }) => ({
      kv,
      tokens: tokens.slice(kv.length, Math.min(tokens.length - 1, kv.length + width)),
    }));
    await target.model.prefill(rows);
    for (const [i, job] of jobs.entries()) {
      const count = rows[i]?.tokens.length ?? 0;
      this.counts.prefilledTokens += count;
      job.prefilled += count;
      job.waits = 0;
      this.publish(target, job.sequence);
    }
  }

  /** Lets the job's sequence hold what is cached of its prompt, and counts it. */
  private takeCached({ prefixes }: PrefillTarget, job: PrefillJob): void {
    if (this.options.share !== true || isReady(job)) return;
    const { kv, tokens, missing } = job.sequence;
    const taken = this.options.prefixes.extend(prefixes, kv, tokens, tokens.length - 1);
    this.counts.hitTokens += taken;
    if (taken > 0 && job.prefix !== 'hit') {
      this.counts.prefixHits++;
      if (job.prefix === 'miss') this.counts.prefixMisses--;
      job.prefix = 'hit';
    } else if (job.prefix === 'unknown' && missing >= BLOCK_TOKENS) {
      this.counts.prefixMisses++;
      job.prefix = 'miss';
    }
  }
}

/** Whether the prompt is cached, all but the last token, which the decode run takes in. */
export function isReady({ sequence }: { readonly sequence: LocalSequence }): boolean {
  return sequence.missing <= 0;
}
