/**
 * Collections of documents for search, in a file of their own beside the database: full-text tables
 * are no matter of its migrations, and whoever loses the file only has to import again. Several
 * programs may have it open: the server, the command line beside it, and a trainer with a copy.
 *
 * The collection `corpus` is always there. It begins as the documents that ship with ramify; those
 * of a newer ramify are added to it when the file is opened.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import BetterSqlite3 from 'better-sqlite3';
import type { Clock } from '../core/clock.ts';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { SearchIndex, SlowSearchIndex } from '../core/ports.ts';
import { createDocuments, readDocuments, searchOf } from './search-index.ts';
import type { SearchDocument } from './search-index.ts';
import { SearchThread } from './search-thread.ts';

export const CORPUS = 'corpus';

export interface CollectionRecord {
  name: string;
  documents: number;
  createdAt: number;
  updatedAt: number;
}

const FORMAT = 1;

/**
 * `documents.row` is the rowid in the full-text table of the collection, which cannot be asked for
 * an id; `collections.shipped` is the hash of the shipped documents that it has.
 */
const SCHEMA = `
  CREATE TABLE collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    documents INTEGER NOT NULL DEFAULT 0, shipped TEXT,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL);
  CREATE TABLE documents (
    collection INTEGER NOT NULL, id TEXT NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (collection, id)) WITHOUT ROWID;
  PRAGMA user_version = ${FORMAT}`;

/**
 * Opens the file, made when missing, with the shipped documents in it.
 * @throws AppError storage_failed
 */
export function openCollections(path: string, shipped: string, clock: Clock): CollectionStore {
  return guarded(`open the collections ${path}`, () => {
    const database = new BetterSqlite3(path, { timeout: LIMITS.databaseBusyTimeoutMs });
    try {
      database.pragma('journal_mode = WAL');
      database.pragma('synchronous = FULL');
      database.transaction(() => {
        if (formatOf(database, path) === 0) database.exec(SCHEMA);
      })();
      const store = new CollectionStore(database, clock);
      store.seed(shipped);
      return store;
    } catch (error) {
      database.close();
      throw error;
    }
  });
}

/** Opens the file as it is, beside whoever writes it; null when there is none. */
export function readCollections(path: string, clock: Clock): CollectionStore | null {
  if (!existsSync(path)) return null;
  return guarded(`read the collections ${path}`, () => {
    const timeout = LIMITS.databaseBusyTimeoutMs;
    const database = new BetterSqlite3(path, { readonly: true, timeout });
    try {
      if (formatOf(database, path) === 0) throw new AppError('storage_failed', `${path} is empty`);
      return new CollectionStore(database, clock);
    } catch (error) {
      database.close();
      throw error;
    }
  });
}

/** A copy as the collections are at one moment, while others write; whole or not there. */
export async function copyCollections(from: string, to: string): Promise<void> {
  const partial = `${to}.partial`;
  const source = new BetterSqlite3(from, { readonly: true, timeout: LIMITS.databaseBusyTimeoutMs });
  try {
    rmSync(partial, { force: true });
    await source.backup(partial);
    // Without a log beside it the copy can be read by whoever may not write.
    const copy = new BetterSqlite3(partial);
    copy.pragma('journal_mode = DELETE');
    copy.close();
    renameSync(partial, to);
  } finally {
    source.close();
  }
}

function formatOf(database: BetterSqlite3.Database, path: string): number {
  const format = database.pragma('user_version', { simple: true }) as number;
  if (format <= FORMAT) return format;
  throw new AppError('storage_failed', `${path} was written by a newer version of ramify`);
}

export class CollectionStore {
  private readonly database: BetterSqlite3.Database;
  private readonly clock: Clock;
  /** Prepared searches, by the id of the collection. */
  private readonly searches = new Map<number, SearchIndex['search']>();
  private readonly thread: SearchThread;

  constructor(database: BetterSqlite3.Database, clock: Clock) {
    this.database = database;
    this.clock = clock;
    this.thread = new SearchThread(database.name);
  }

  /** In the order of their names. */
  list(): CollectionRecord[] {
    return this.database
      .prepare<[], CollectionRecord>(`SELECT ${COLUMNS} FROM collections ORDER BY name`)
      .all();
  }

  /** @throws AppError collection_not_found */
  get(name: string): CollectionRecord {
    const found = this.database
      .prepare<[string], CollectionRecord>(`SELECT ${COLUMNS} FROM collections WHERE name = ?`)
      .get(name);
    if (found === undefined) throw new AppError('collection_not_found', `no collection ${name}`);
    return found;
  }

  /** Changes when another program has changed something. */
  version(): number {
    return this.database.pragma('data_version', { simple: true }) as number;
  }

  /** The collection by its name, whatever becomes of it; nothing is found when it is gone. */
  index(name: string): SearchIndex {
    return {
      search: (query, limit) => {
        const id = this.idOf(name);
        if (id === undefined) return [];
        const known = this.searches.get(id) ?? searchOf(this.database, tableOf(id));
        this.searches.set(id, known);
        return known(query, limit);
      },
    };
  }

  /** The same, searched in a thread. */
  slowIndex(name: string): SlowSearchIndex {
    return {
      search: (query, limit, signal) =>
        this.thread.search({ collection: name, query, limit }, signal),
    };
  }

  /**
   * Adds documents and replaces those whose id is known; makes the collection when it is missing.
   * All of it or nothing.
   */
  upsert(name: string, documents: readonly SearchDocument[]): { created: number; updated: number } {
    return this.write(() => {
      const id = this.idOf(name) ?? this.create(name);
      const table = tableOf(id);
      const find = this.database
        .prepare<[number, string], number>('SELECT row FROM documents WHERE collection=? AND id=?')
        .pluck();
      const insert = this.database.prepare(
        `INSERT INTO ${table} (id, title, text) VALUES (?, ?, ?)`,
      );
      const place = this.database.prepare('INSERT INTO documents VALUES (?, ?, ?)');
      const update = this.database.prepare(`UPDATE ${table} SET title=?, text=? WHERE rowid=?`);
      let created = 0;
      for (const document of documents) {
        const row = find.get(id, document.id);
        if (row === undefined) {
          const { lastInsertRowid } = insert.run(document.id, document.title, document.text);
          place.run(id, document.id, lastInsertRowid);
          created++;
        } else {
          update.run(document.title, document.text, row);
        }
      }
      this.touch(id, created);
      return { created, updated: documents.length - created };
    });
  }

  /** @throws AppError collection_not_found, document_not_found */
  deleteDocument(name: string, documentId: string): void {
    this.write(() => {
      const id = this.mustFind(name);
      const row = this.database
        .prepare<[number, string], number>(
          'DELETE FROM documents WHERE collection = ? AND id = ? RETURNING row',
        )
        .pluck()
        .get(id, documentId);
      if (row === undefined) {
        throw new AppError('document_not_found', `no document ${documentId} in ${name}`);
      }
      this.database.prepare(`DELETE FROM ${tableOf(id)} WHERE rowid = ?`).run(row);
      this.touch(id, -1);
    });
  }

  /** @throws AppError collection_not_found; invalid_request for the one that is always there. */
  delete(name: string): void {
    if (name === CORPUS) {
      const why = 'the default collection stays; its documents can be deleted';
      throw new AppError('invalid_request', `name: ${name}: ${why}`, { param: 'name' });
    }
    this.write(() => {
      const id = this.mustFind(name);
      this.database.exec(`DROP TABLE ${tableOf(id)}`);
      this.database.prepare('DELETE FROM documents WHERE collection = ?').run(id);
      this.database.prepare('DELETE FROM collections WHERE id = ?').run(id);
      this.searches.delete(id);
    });
  }

  /** The shipped documents, where they are not there yet. */
  seed(path: string): void {
    const hash = createHash('sha256').update(readFileSync(path)).digest('hex');
    const known = this.database
      .prepare<[string], string | null>('SELECT shipped FROM collections WHERE name = ?')
      .pluck()
      .get(CORPUS);
    if (known === hash) return;
    this.write(() => {
      this.upsert(CORPUS, readDocuments(path));
      this.database.prepare('UPDATE collections SET shipped=? WHERE name=?').run(hash, CORPUS);
    });
  }

  close(): void {
    this.thread.stop();
    this.database.close();
  }

  private write<T>(work: () => T): T {
    return guarded('write the collections', () => this.database.transaction(work).immediate());
  }

  private idOf(name: string): number | undefined {
    return this.database
      .prepare<[string], number>('SELECT id FROM collections WHERE name = ?')
      .pluck()
      .get(name);
  }

  private mustFind(name: string): number {
    const id = this.idOf(name);
    if (id === undefined) throw new AppError('collection_not_found', `no collection ${name}`);
    return id;
  }

  private create(name: string): number {
    const count = this.database.prepare<[], number>('SELECT count(*) FROM collections').pluck();
    if ((count.get() ?? 0) >= LIMITS.collectionsMax) {
      const why = `there are ${LIMITS.collectionsMax} collections already`;
      throw new AppError('invalid_request', `name: ${name}: ${why}`, { param: 'name' });
    }
    const now = this.clock.now();
    const { lastInsertRowid } = this.database
      .prepare('INSERT INTO collections (name, created_at, updated_at) VALUES (?, ?, ?)')
      .run(name, now, now);
    createDocuments(this.database, tableOf(Number(lastInsertRowid)));
    return Number(lastInsertRowid);
  }

  private touch(id: number, added: number): void {
    this.database
      .prepare('UPDATE collections SET documents = documents + ?, updated_at = ? WHERE id = ?')
      .run(added, this.clock.now(), id);
  }
}

const COLUMNS = 'name, documents, created_at AS createdAt, updated_at AS updatedAt';

function tableOf(id: number): string {
  return `documents_${id}`;
}

function guarded<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new AppError('storage_failed', `cannot ${what}: ${why}`, { cause });
  }
}
