/**
 * Rated live conversations as a training run is fed with them: those of the newest `reward`
 * feedback, with their steps and with what was asked. Only server-run agents are looked at: the
 * functions of a chat completion run on its client, where training cannot call them. A conversation
 * without a reward is never read. Whether one is of use is not decided here.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type BetterSqlite3 from 'better-sqlite3';
import { LIMITS } from '../core/limits.ts';
import type { LiveSample } from '../core/records.ts';
import { REWARD_METRIC } from './feedback-store.ts';
import type { Database } from './open.ts';
import type { TrajectoryStore } from './trajectory-store.ts';

export interface LiveSamples {
  /** Newest rating first. */
  samples: LiveSample[];
  /** Rated conversations that were no agent run. */
  chats: number;
}

// Within a metric the index has the order of arrival.
const NEWEST_RATED = `
  SELECT trajectory_id AS id FROM feedback WHERE metric_name = '${REWARD_METRIC}'
  ORDER BY rowid DESC LIMIT ?`;

const AGENT_RUN = 'SELECT request FROM agent_runs WHERE trajectory_id = ?';

export class LiveSampleStore {
  private readonly trajectories: TrajectoryStore;
  private readonly newestRated: BetterSqlite3.Statement<[number], { id: string }>;
  private readonly agentRun: BetterSqlite3.Statement<[string], { request: string }>;

  constructor(db: Database, trajectories: TrajectoryStore) {
    this.trajectories = trajectories;
    this.newestRated = db.sqlite.prepare(NEWEST_RATED);
    this.agentRun = db.sqlite.prepare(AGENT_RUN);
  }

  /** Reads in small pieces, so that live requests get their turn between them. */
  async newest(ratingsMax: number = LIMITS.liveSamplesMax): Promise<LiveSamples> {
    const ids = [...new Set(this.newestRated.all(ratingsMax).map(({ id }) => id))];
    const samples: LiveSample[] = [];
    let chats = 0;
    for (const [i, id] of ids.entries()) {
      const trajectory = this.trajectories.find(id);
      if (trajectory?.source === 'live' && trajectory.reward !== null) {
        const asked = this.askedOf(id);
        if (asked === null) chats++;
        else
          samples.push({
            trajectory,
            steps: this.trajectories.path(trajectory.leafStepId),
            ...asked,
          });
      }
      if (i % LIMITS.liveSamplesPerRead === LIMITS.liveSamplesPerRead - 1) await nextTurn();
    }
    return { samples, chats };
  }

  private askedOf(trajectoryId: string): Asked | null {
    const row = this.agentRun.get(trajectoryId);
    return row === undefined ? null : askedIn(JSON.parse(row.request) as AgentRunRequest);
  }
}

type Asked = Pick<LiveSample, 'question' | 'tools' | 'clientTools'>;

/** The fields of a stored request that say what was asked; it was validated when it came. */
interface AgentRunRequest {
  input?: string;
  messages?: readonly Record<string, unknown>[];
  tools?: readonly unknown[];
}

function askedIn({ input, messages, tools = [] }: AgentRunRequest): Asked {
  const asked = messages ?? [{ role: 'user', content: input }];
  const names = tools.filter((tool) => typeof tool === 'string');
  return {
    // Fields in one order, whatever the client's was.
    question: JSON.stringify(
      asked.map((message) => Object.entries(message).sort(([a], [b]) => (a < b ? -1 : 1))),
    ),
    tools: names,
    clientTools: names.length < tools.length,
  };
}
