/**
 * `ramify collection`: documents that the agent's tools search. Works beside a running server,
 * which finds new documents at once and offers a new collection's tool within a second.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { systemClock } from '../../core/clock.ts';
import { AppError, toAppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import { CORPUS, openCollections } from '../../db/collection-store.ts';
import type { CollectionStore } from '../../db/collection-store.ts';
import { makeFolder } from '../../db/make-folder.ts';
import type { SearchDocument } from '../../db/search-index.ts';
import { loadContract } from '../contract/contract.ts';
import { readDocumentLine } from '../document-lines.ts';
import { collectionsFile, shippedDocuments } from '../own-tools.ts';
import { EXIT, readWords, SERVER_HELP } from './command.ts';
import type { Call, Command } from './command.ts';
import { readLines } from './line-files.ts';
import { markdownDocuments } from './markdown.ts';
import { Progress } from './output.ts';
import { table } from './text.ts';

const HELP = `npx ramify collection list | import NAME SOURCE | delete NAME [flags]: documents to search.
  NAME                 letters, digits, _ and -; the tool is search_NAME, of "corpus" it is search
  SOURCE               a file of JSON lines {"id", "title", "text"} (.gz is unpacked, - is stdin), a
                       Markdown file, or a folder of them, of which each section is a document
A document whose id is known is replaced. May be used while a server runs.
${SERVER_HELP}
Examples:
  npx ramify collection import handbook docs/
  npx ramify collection import corpus facts.jsonl`;

export const collectionCommand: Command = {
  summary: 'documents that the tools of the agent search',
  help: HELP,
  run: async (call) => {
    const { rest, config } = readWords(call, {}, 3);
    const [action = '', name, source, ...more] = rest;
    const words = { list: 1, import: 3, delete: 2 }[action];
    if (words === undefined || words !== rest.length || more.length > 0) {
      const form = 'list, import NAME SOURCE or delete NAME';
      throw new AppError('invalid_request', `collection ${rest.join(' ')}: must be ${form}`);
    }
    if (name !== undefined && !/^[a-zA-Z0-9_-]{1,57}$/.test(name)) {
      throw new AppError('invalid_request', `${name}: must be 1 to 57 letters, digits, _ or -`);
    }
    makeFolder(config.dataFolder);
    const file = collectionsFile(config.dataFolder);
    const store = openCollections(file, shippedDocuments, systemClock);
    try {
      if (action === 'list') await list(call, store);
      else if (action === 'delete') await remove(call, store, name as string);
      else await importSource(call, store, name as string, source as string);
    } finally {
      store.close();
    }
    return EXIT.done;
  },
};

const toolOf = (name: string): string => (name === CORPUS ? 'search' : `search_${name}`);

async function list({ output }: Call, store: CollectionStore): Promise<void> {
  const all = store.list();
  const rows = all.map(({ name, documents }) => [name, String(documents), toolOf(name)]);
  await output.text(table(['collection', 'documents', 'tool'], rows).join('\n'));
  for (const { name, documents } of all) {
    await output.record({ object: 'collection', name, documents, tool: toolOf(name) });
  }
}

async function remove({ output }: Call, store: CollectionStore, name: string): Promise<void> {
  store.delete(name);
  await output.record({ object: 'collection', name, deleted: true });
  await output.text(`deleted ${name}`);
}

async function importSource(
  { output, signal }: Call,
  store: CollectionStore,
  name: string,
  source: string,
): Promise<void> {
  const counts = { created: 0, updated: 0 };
  let [batch, chars]: [SearchDocument[], number] = [[], 0];
  const progress = new Progress(output, 'imported', null);
  const flush = (): void => {
    const { created, updated } = store.upsert(name, batch);
    counts.created += created;
    counts.updated += updated;
    [batch, chars] = [[], 0];
    progress.update(counts.created + counts.updated);
  };
  try {
    for await (const document of documentsOf(source)) {
      signal.throwIfAborted();
      batch.push(document);
      chars += document.text.length;
      const { documentsPerWrite, documentCharsPerWrite } = LIMITS;
      if (batch.length < documentsPerWrite && chars < documentCharsPerWrite) continue;
      flush();
      // A server beside it may want to write too.
      await nextTurn();
    }
    flush();
  } finally {
    progress.close();
  }
  await output.record({ object: 'import', kind: 'documents', collection: name, ...counts });
  await output.text(
    `imported ${counts.created + counts.updated} documents into ${name}, ` +
      `${counts.updated} of them known before; the tool is ${toolOf(name)}`,
  );
}

async function* documentsOf(source: string): AsyncGenerator<SearchDocument> {
  if (isFolder(source)) {
    const files = (readdirSync(source, { recursive: true }) as string[]).filter(isMarkdown).sort();
    if (files.length === 0) throw new AppError('invalid_request', `${source}: has no .md file`);
    for (const file of files) yield* markdownFile(join(source, file), source);
  } else if (isMarkdown(source)) {
    yield* markdownFile(source, join(source, '..'));
  } else {
    yield* jsonLines(source);
  }
}

const isMarkdown = (path: string): boolean => /\.(md|markdown)$/i.test(path);

function isFolder(path: string): boolean {
  if (path === '-') return false;
  try {
    return statSync(path).isDirectory();
  } catch (cause) {
    const why = toAppError(cause).message;
    throw new AppError('storage_failed', `cannot read ${path}: ${why}`, { cause });
  }
}

function* markdownFile(path: string, folder: string): Generator<SearchDocument> {
  yield* markdownDocuments(
    relative(folder, path).replaceAll('\\', '/'),
    readFileSync(path, 'utf8'),
  );
}

async function* jsonLines(path: string): AsyncGenerator<SearchDocument> {
  const contract = loadContract();
  let number = 0;
  for await (const text of readLines(path, process.stdin)) {
    number++;
    if (text.trim() === '') continue;
    try {
      yield readDocumentLine(contract, { number, text });
    } catch (thrown) {
      const { code, message } = toAppError(thrown);
      throw new AppError(code, `${path}: ${message}`, { cause: thrown });
    }
  }
}
