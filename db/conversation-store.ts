/**
 * Client sessions: which conversation a session key means, and where it continues. The step log
 * moves `lastTrajectoryId` in the same commit that stores a live trajectory.
 */
import { and, eq } from 'drizzle-orm';
import type { ConversationRecord } from '../core/records.ts';
import type { GroupCommit } from './group-commit.ts';
import type { Database } from './open.ts';
import { conversations } from './schema.ts';

export interface Session {
  tenant: string;
  sessionKey: string;
}

export class ConversationStore {
  private readonly orm: Database['orm'];
  private readonly commits: GroupCommit;

  constructor(db: Database, commits: GroupCommit) {
    this.orm = db.orm;
    this.commits = commits;
  }

  find(id: string): ConversationRecord | null {
    return this.orm.select().from(conversations).where(eq(conversations.id, id)).get() ?? null;
  }

  /** Equal keys of one tenant are one conversation. */
  findBySession({ tenant, sessionKey }: Session): ConversationRecord | null {
    const where = and(eq(conversations.tenant, tenant), eq(conversations.sessionKey, sessionKey));
    return this.orm.select().from(conversations).where(where).get() ?? null;
  }

  /**
   * The conversation of a session key, made with the given id when there is none yet: of two first
   * requests at once, both get the same. Resolves when it is durable.
   */
  open(
    session: Session,
    newConversation: { id: string; nowMs: number },
  ): Promise<ConversationRecord> {
    const { id, nowMs } = newConversation;
    return this.commits.run(1, () => {
      const found = this.findBySession(session);
      if (found !== null) return found;
      return this.orm
        .insert(conversations)
        .values({ id, ...session, createdAt: nowMs, updatedAt: nowMs })
        .returning()
        .get();
    });
  }
}
