/**
 * What the client of a chat completion offered with it: its functions, by which the question could
 * be asked again, and its metadata. Conversations send the same functions with every request, so a
 * list is stored once and named by its digest.
 */
import { createHash } from 'node:crypto';
import type BetterSqlite3 from 'better-sqlite3';
import type { ClientOffer } from '../core/records.ts';
import type { Database } from './open.ts';

/** Columns of a trajectory. */
export interface OfferColumns {
  offeredTools: string | null;
  metadata: string | null;
}

const KEEP = `
  INSERT INTO offered_tools (digest, tools) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING`;

const OF = `
  SELECT t.metadata, o.tools FROM trajectories t
  LEFT JOIN offered_tools o ON o.digest = t.offered_tools WHERE t.id = ?`;

export class ClientOffers {
  private readonly insert: BetterSqlite3.Statement;
  private readonly select: BetterSqlite3.Statement<
    [string],
    { metadata: string | null; tools: string | null }
  >;

  constructor({ sqlite }: Pick<Database, 'sqlite'>) {
    this.insert = sqlite.prepare(KEEP);
    this.select = sqlite.prepare(OF);
  }

  /** Part of the write of a trajectory, which gets the columns. */
  keep({ tools, metadata }: ClientOffer): OfferColumns {
    return {
      offeredTools: tools.length === 0 ? null : this.keepTools(tools),
      metadata: metadata && JSON.stringify(metadata),
    };
  }

  /** Nothing for a trajectory of another kind. */
  of(trajectoryId: string): ClientOffer {
    const row = this.select.get(trajectoryId);
    return {
      tools: row?.tools ? (JSON.parse(row.tools) as ClientOffer['tools']) : [],
      metadata: row?.metadata ? (JSON.parse(row.metadata) as ClientOffer['metadata']) : null,
    };
  }

  private keepTools(tools: ClientOffer['tools']): string {
    // The same tools give the same text.
    const text = JSON.stringify(
      tools.map(({ name, description, parameters }) => ({ name, description, parameters })),
    );
    const digest = createHash('sha256').update(text).digest('hex');
    this.insert.run(digest, text);
    return digest;
  }
}
