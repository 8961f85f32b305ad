/**
 * What becomes of a candidate: after the gate it is a canary for a while, or live at once; in live
 * traffic it is compared with the version before, and taken back when it is worse. Every decision
 * leaves a row with its figures.
 *
 * A canary and the live version get conversations by lot at the same time, so their difference is
 * the versions' own. A version that is live is compared with the newest conversations of the one
 * that it replaced, until it has LIMITS.liveTrajectoriesMax; what changes later is not its doing. A
 * version that an operator activated is left alone: a person has decided. That a version has had so
 * many is remembered, and until then the log forgets none of them.
 */
import { must } from '../core/assert.ts';
import type { Clock } from '../core/clock.ts';
import { toAppError } from '../core/errors.ts';
import type { NewId } from '../core/ids.ts';
import { LIMITS } from '../core/limits.ts';
import type { Logger } from '../core/log.ts';
import type {
  CanaryTerms,
  GateReport,
  LiveComparison,
  LiveOutcomes,
  PolicyDecision,
  TrainingRunRecord,
} from '../core/records.ts';
import { compareLive, whyWorse } from '../core/trainer/live-comparison.ts';
import type { Stores } from '../db/stores.ts';
import type { PolicyService } from './policy-service.ts';

export interface ReleaseSettings {
  /** How a candidate that passed the gate begins; null = live at once. */
  canary: CanaryTerms | null;
  /** How much worse live rewards, and the share of errors, may be; null = not looked at. */
  rollbackTolerance: number | null;
}

export interface PolicyReleasesOptions {
  stores: Stores;
  policies: PolicyService;
  settings: ReleaseSettings;
  clock: Clock;
  newId: NewId;
  logger: Logger;
}

/** A registered candidate and the verdict of the gate. */
export interface JudgedCandidate {
  version: number;
  baseVersion: number;
  gate: GateReport;
  runId: string;
}

/** How the run that made the candidate ends. */
export type Release = Pick<TrainingRunRecord, 'error'> & {
  status: 'completed' | 'rejected' | 'failed';
};

export class PolicyReleases {
  private readonly options: PolicyReleasesOptions;
  private timer: NodeJS.Timeout | undefined;
  private looking: Promise<void> | null = null;
  /** A version that was to be taken back and could not: it is not tried every second. */
  private stuck: number | null = null;

  constructor(options: PolicyReleasesOptions) {
    this.options = options;
  }

  /** Begins to look at live traffic. */
  start(): void {
    this.timer = setInterval(() => void this.look(), LIMITS.livePollMs);
    this.timer.unref();
  }

  /** Waits for a move that is under way. */
  async stop(): Promise<void> {
    clearInterval(this.timer);
    await this.looking;
  }

  /** Rejects, activates or starts the candidate as a canary, as the gate and the settings say. */
  async release({ version, baseVersion, gate, runId }: JudgedCandidate): Promise<Release> {
    const { stores, policies, settings, newId, clock, logger } = this.options;
    const now = policies.liveVersion;
    // Then the gate compared it with a policy that is live no more: a person decides.
    const error =
      now === baseVersion
        ? null
        : `the live policy changed from ${baseVersion} to ${now} meanwhile`;
    const reason = gate.passed && error !== null ? `${gate.reason}; but ${error}` : gate.reason;
    const row: PolicyDecision = {
      id: newId('decision'),
      kind: gate.passed ? 'gate_passed' : 'gate_rejected',
      version,
      otherVersion: baseVersion,
      cause: 'gate',
      reason,
      figures: { gate },
      trainingRunId: runId,
      createdAt: clock.now(),
    };
    // A server that was killed in between may have written it already.
    if (stores.policies.decisions.newest(version, ['gate_passed', 'gate_rejected']) === null) {
      stores.policies.decide(row, gate.passed ? [] : [[version, 'rejected']]);
    }
    if (!gate.passed) return { status: 'rejected', error: null };
    if (error !== null) return { status: 'rejected', error };
    const why = { cause: 'gate' as const, reason, trainingRunId: runId };
    try {
      if (settings.canary === null) await policies.activate(version, why);
      else await policies.startCanary(version, settings.canary, why);
      return { status: 'completed', error: null };
    } catch (thrown) {
      const error = toAppError(thrown);
      const message = `the candidate could not be activated: ${error.message}`;
      logger.error({ runId, stack: error.stack }, message);
      return { status: 'failed', error: message };
    }
  }

  /** Looks at live traffic once; what it finds is done before it resolves. Never rejects. */
  look(): Promise<void> {
    this.looking ??= this.lookOnce()
      .catch((thrown: unknown) => {
        const { message } = toAppError(thrown);
        this.options.logger.error({ error: message }, 'live traffic could not be judged');
      })
      .finally(() => (this.looking = null));
    return this.looking;
  }

  private async lookOnce(): Promise<void> {
    const watched = this.options.stores.policies.watched();
    if (watched === null) return;
    const { version, activated } = watched;
    if (activated === null) await this.lookAtCanary(version);
    else await this.lookAtActive(version, activated);
  }

  private async lookAtCanary(version: number): Promise<void> {
    const { stores, policies, clock } = this.options;
    const started = stores.policies.decisions.newest(version, ['canary_started']);
    const terms = started?.figures.canary;
    if (started === null || terms === undefined) return;
    const since = started.createdAt;
    const own = stores.trajectories.liveOutcomes(version, since);
    const live = this.compare({ version: policies.liveVersion, since }, own);
    if (await this.tookBack(version, live)) return;
    const minutes = (clock.now() - since) / 60_000;
    const { conversations } = live.candidate;
    const enough =
      conversations >= terms.conversations || own.trajectories >= LIMITS.liveTrajectoriesMax;
    if (!enough && (terms.minutes === null || minutes < terms.minutes)) return;
    const time = `${conversations} conversations in ${minutes.toFixed(1)} minutes`;
    const reason = `nothing against it in ${time}`;
    await policies.activate(version, { cause: 'live', reason, figures: { live, canary: terms } });
  }

  private async lookAtActive(version: number, activated: PolicyDecision): Promise<void> {
    const { stores, clock } = this.options;
    const { policies, trajectories } = stores;
    const canary = policies.decisions.newest(version, ['canary_started']);
    const since = canary?.createdAt ?? activated.createdAt;
    const own = trajectories.liveOutcomes(version, since);
    if (own.trajectories >= LIMITS.liveTrajectoriesMax) {
      policies.settle(version, clock.now());
      return;
    }
    const base = must(activated.otherVersion, 'a watched version took the place of another');
    await this.tookBack(version, this.compare({ version: base, since: 0 }, own));
  }

  private async tookBack(version: number, live: LiveComparison): Promise<boolean> {
    const { policies, settings } = this.options;
    const reason = settings.rollbackTolerance === null ? null : whyWorse(live);
    if (reason === null) return false;
    if (this.stuck === version) return true;
    try {
      await policies.takeBack(version, { cause: 'live', reason, figures: { live } });
    } catch (thrown) {
      if (toAppError(thrown).code !== 'engine_unavailable') this.stuck = version;
      throw thrown;
    }
    return true;
  }

  private compare(
    base: { version: number; since: number },
    candidate: LiveOutcomes,
  ): LiveComparison {
    const { stores, settings } = this.options;
    const outcomes = stores.trajectories.liveOutcomes(base.version, base.since);
    return compareLive(outcomes, candidate, settings.rollbackTolerance ?? 0);
  }
}
