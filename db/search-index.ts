/**
 * Full-text search over a knowledge base: SQLite FTS5 ranked by bm25, behind the port SearchIndex
 * of core. The title says what a document is about, so it counts more than the text. Knows nothing
 * of tools or of what the documents say.
 */
import Database from 'better-sqlite3';
import { readFileSync } from 'node:fs';
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { SearchHit, SearchIndex } from '../core/ports.ts';

export interface SearchDocument {
  id: string;
  title: string;
  text: string;
}

export interface SearchIndexOptions {
  /** Where the index lives: a file (rebuilt from the documents each time), or memory (default). */
  database?: string;
}

export interface OpenedSearchIndex extends SearchIndex {
  /** Documents held. */
  readonly size: number;
  close(): void;
}

/** A title word weighs as much as this many text words. */
const TITLE_WEIGHT = 4;

/** The most that FTS5 gives. */
const SNIPPET_TOKENS = 64;

/** More words than any sensible query; the rest is ignored, so that a pasted page stays cheap. */
const QUERY_WORDS_MAX = 32;

/** Words that are in nearly every document or question and so say nothing about either. */
const STOP_WORDS: ReadonlySet<string> = new Set(
  (
    'a an and are at by do does for from has have how in is it its name of on s tell that the ' +
    'this to was were what which who whose with'
  ).split(' '),
);

/**
 * Opens an index over documents, or over a JSON Lines file of {id, title, text} given by its path.
 * Throws storage_failed when the file cannot be read or a line is not a document.
 */
export function openSearchIndex(
  source: readonly SearchDocument[] | string,
  options: SearchIndexOptions = {},
): OpenedSearchIndex {
  const documents = typeof source === 'string' ? readDocuments(source) : source;
  const database = openDatabase(options.database ?? ':memory:');
  try {
    fill(database, documents);
  } catch (cause) {
    database.close();
    throw new AppError('storage_failed', `cannot build the search index: ${text(cause)}`, {
      cause,
    });
  }
  const search = searchOf(database, 'documents');
  return {
    size: documents.length,
    search,
    close() {
      database.close();
    },
  };
}

/** A table for documents. Names of tables are never a caller's. */
export function createDocuments(database: Database.Database, table: string): void {
  database.exec(
    `CREATE VIRTUAL TABLE ${table} USING fts5(
       id UNINDEXED, title, text, tokenize = 'unicode61 remove_diacritics 2')`,
  );
}

/** Of a document that is longer than a result should be, the piece that has most of the words. */
export function searchOf(database: Database.Database, table: string): SearchIndex['search'] {
  const text = `CASE WHEN length(text) > ${LIMITS.searchTextCharsMax}
    THEN snippet(${table}, 2, '', '', ' ... ', ${SNIPPET_TOKENS}) ELSE text END`;
  // Equal scores are ordered by position, so that a recorded result can be repeated.
  const find = database.prepare<[string, number], SearchHit>(
    `SELECT id, title, ${text} AS text, -bm25(${table}, 0, ${TITLE_WEIGHT}, 1) AS score
       FROM ${table} WHERE ${table} MATCH ? ORDER BY score DESC, rowid LIMIT ?`,
  );
  return (query, limit) => {
    const match = matchExpression(query);
    return match === null || limit < 1 ? [] : find.all(match, Math.floor(limit));
  };
}

/**
 * A query as an FTS5 expression: each word quoted, joined by OR. Quoted words are never syntax,
 * whatever they spell. Null when nothing is left to look for.
 */
export function matchExpression(query: string): string | null {
  const head = query.slice(0, LIMITS.toolArgumentsCharsMax).toLowerCase();
  const words = head.match(/[\p{L}\p{N}\p{M}]+/gu) ?? [];
  const telling = words.filter((word) => !STOP_WORDS.has(word));
  // A query of stop words only ("The Who") is still a query.
  const kept = [...new Set(telling.length > 0 ? telling : words)].slice(0, QUERY_WORDS_MAX);
  return kept.length === 0 ? null : kept.map((word) => `"${word}"`).join(' OR ');
}

function openDatabase(path: string): Database.Database {
  try {
    return new Database(path);
  } catch (cause) {
    throw new AppError('storage_failed', `cannot open the search index ${path}: ${text(cause)}`, {
      cause,
    });
  }
}

function fill(database: Database.Database, documents: readonly SearchDocument[]): void {
  database.transaction(() => {
    database.exec('DROP TABLE IF EXISTS documents');
    createDocuments(database, 'documents');
    const insert = database.prepare('INSERT INTO documents (id, title, text) VALUES (?, ?, ?)');
    for (const { id, title, text } of documents) insert.run(id, title, text);
  })();
  // One segment instead of several: each query then looks words up once.
  database.exec(`INSERT INTO documents (documents) VALUES ('optimize')`);
}

export function readDocuments(path: string): SearchDocument[] {
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new AppError('storage_failed', `cannot read the documents ${path}: ${text(cause)}`, {
      cause,
    });
  }
  return content
    .split('\n')
    .flatMap((line, index) => (line.trim() === '' ? [] : [parseDocument(line, path, index + 1)]));
}

function parseDocument(line: string, path: string, lineNumber: number): SearchDocument {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new AppError('storage_failed', `${path}:${lineNumber} is not JSON`, { cause });
  }
  if (!isDocument(value)) {
    throw new AppError('storage_failed', `${path}:${lineNumber} has no id, title and text`);
  }
  return { id: value.id, title: value.title, text: value.text };
}

function isDocument(value: unknown): value is SearchDocument {
  if (typeof value !== 'object' || value === null) return false;
  const { id, title, text } = value as Record<string, unknown>;
  return typeof id === 'string' && typeof title === 'string' && typeof text === 'string';
}

function text(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
