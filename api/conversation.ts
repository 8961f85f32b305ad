/** Which conversation of the log a request belongs to, by the client's `x-session-id`. */
import type { AppDeps } from './app.ts';

/** The conversation's id, made on the first request of a session; null without a session. */
export async function conversationOf(
  deps: Pick<AppDeps, 'stores' | 'newId' | 'clock'>,
  { tenant, sessionId }: { tenant: string; sessionId: string | null },
): Promise<string | null> {
  if (sessionId === null) return null;
  const session = { tenant, sessionKey: sessionId };
  const { conversations, recentUse } = deps.stores;
  const known = conversations.findBySession(session);
  if (known !== null) {
    recentUse.note(known.id);
    return known.id;
  }
  const created = { id: deps.newId('conversation'), nowMs: deps.clock.now() };
  return (await conversations.open(session, created)).id;
}
