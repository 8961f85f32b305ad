/** All stores over one database, wired to one group commit: what api/ gets passed. */
import type { Clock } from '../core/clock.ts';
import { systemClock } from '../core/clock.ts';
import { AgentRunStore } from './agent-run-store.ts';
import { AnswerStore } from './answer-store.ts';
import { AuditStore } from './audit-store.ts';
import { ConversationStore } from './conversation-store.ts';
import { FeedbackStore } from './feedback-store.ts';
import { GroupCommit } from './group-commit.ts';
import { LogReader } from './log-reader.ts';
import { LogRemoval } from './log-removal.ts';
import { KeyStore } from './key-store.ts';
import { LiveSampleStore } from './live-samples.ts';
import type { Database } from './open.ts';
import { PolicyStore } from './policy-store.ts';
import { RecentUse } from './recent-use.ts';
import { ResponseStore } from './response-store.ts';
import { RolloutRemoval } from './rollout-removal.ts';
import { SqliteStepLog } from './step-log.ts';
import { TaskStore } from './task-store.ts';
import { TrainingStore } from './training-store.ts';
import { TrajectoryStore } from './trajectory-store.ts';

export interface Stores {
  stepLog: SqliteStepLog;
  trajectories: TrajectoryStore;
  /** Its snapshots are for a connection that nobody else uses. */
  logReader: LogReader;
  liveSamples: LiveSampleStore;
  rolloutRemoval: RolloutRemoval;
  logRemoval: LogRemoval;
  recentUse: RecentUse;
  policies: PolicyStore;
  feedback: FeedbackStore;
  tasks: TaskStore;
  training: TrainingStore;
  agentRuns: AgentRunStore;
  responses: ResponseStore;
  conversations: ConversationStore;
  answers: AnswerStore;
  /** Of the database, as opened: an absolute path, or `:memory:`. */
  path(): string;
  keys: KeyStore;
  audit: AuditStore;
  /** Commits what waits, then closes the database. Nothing can be read or written afterwards. */
  close(): void;
}

/** One bundle a database: a second one would be a second writer. */
export function openStores(db: Database, clock: Clock = systemClock): Stores {
  const commits = new GroupCommit(db);
  const trajectories = new TrajectoryStore(db);
  const policies = new PolicyStore(db);
  const training = new TrainingStore(db);
  const responses = new ResponseStore(db, commits);
  const recentUse = new RecentUse(clock);
  return {
    stepLog: new SqliteStepLog(db, commits, clock),
    trajectories,
    logReader: new LogReader(db),
    liveSamples: new LiveSampleStore(db, trajectories),
    rolloutRemoval: new RolloutRemoval(db, commits),
    logRemoval: new LogRemoval(db, { commits, responses, policies, training, recentUse }),
    recentUse,
    policies,
    feedback: new FeedbackStore(db, commits, clock),
    tasks: new TaskStore(db),
    training,
    agentRuns: new AgentRunStore(db, commits),
    responses,
    conversations: new ConversationStore(db, commits),
    answers: new AnswerStore(db, commits),
    path: () => db.path,
    keys: new KeyStore(db, commits),
    audit: new AuditStore(db, commits),
    close: () => {
      commits.close();
      db.close();
    },
  };
}
