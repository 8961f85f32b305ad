/** Collections of documents that tools search: list, add to, delete from, delete. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { LIMITS } from '../../core/limits.ts';
import { CORPUS } from '../../db/collection-store.ts';
import type { CollectionRecord } from '../../db/collection-store.ts';
import type { SearchDocument } from '../../db/search-index.ts';
import type { AppDeps } from '../app.ts';
import { bodyLines } from '../body-lines.ts';
import type { Collections } from '../collections.ts';
import { readDocumentLine } from '../document-lines.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';
import { time } from '../views.ts';

type CollectionOperation =
  'listCollections' | 'importDocuments' | 'deleteDocument' | 'deleteCollection';

export function collectionRoutes(deps: AppDeps): Pick<Handlers, CollectionOperation> {
  const { collections, contract } = deps;
  return {
    // Few enough for one page.
    listCollections: () =>
      json<Schemas['CollectionList']>({
        object: 'list',
        data: collections.store.list().map(collectionView),
        has_more: false,
        next_cursor: null,
      }),
    importDocuments: async ({ path, stream, header, activity }) => {
      const lines = bodyLines(stream, {
        compressed: header['Content-Encoding'] === 'gzip',
        bytesMax: LIMITS.collectionImportBytesMax,
        signal: activity.signal,
      });
      const writer = new BatchWriter(collections, path.name);
      try {
        for await (const line of lines) {
          if (writer.add(readDocumentLine(contract, line))) await nextTurn();
        }
      } catch (thrown) {
        // What came before a wrong line stays, as the contract says.
        if (writer.waiting > 0) writer.store();
        throw thrown;
      }
      writer.store();
      const { counts } = writer;
      const { documents } = collections.store.get(path.name);
      const answer = { object: 'document.import', collection: path.name, documents } as const;
      return json<Schemas['DocumentImport']>({ ...answer, ...counts });
    },
    deleteDocument: ({ path }) => {
      collections.store.deleteDocument(path.name, path.document_id);
      const { document_id: id } = path;
      return json<Schemas['DocumentDeleted']>({ id, object: 'document', deleted: true });
    },
    deleteCollection: ({ path }) => {
      collections.store.delete(path.name);
      collections.changed();
      const { name } = path;
      return json<Schemas['CollectionDeleted']>({ name, object: 'collection', deleted: true });
    },
  };
}

/** Documents are stored some at a time, so that others get their turn between. */
class BatchWriter {
  readonly counts = { created: 0, updated: 0 };
  private readonly collections: Collections;
  private readonly name: string;
  private batch: SearchDocument[] = [];
  private chars = 0;

  constructor(collections: Collections, name: string) {
    this.collections = collections;
    this.name = name;
  }

  get waiting(): number {
    return this.batch.length;
  }

  /** Whether it was stored together with those before. */
  add(document: SearchDocument): boolean {
    this.batch.push(document);
    this.chars += document.title.length + document.text.length;
    const { documentsPerWrite, documentCharsPerWrite } = LIMITS;
    if (this.batch.length < documentsPerWrite && this.chars < documentCharsPerWrite) return false;
    this.store();
    return true;
  }

  store(): void {
    const { created, updated } = this.collections.store.upsert(this.name, this.batch);
    this.counts.created += created;
    this.counts.updated += updated;
    this.batch = [];
    this.chars = 0;
    this.collections.changed();
  }
}

function collectionView(record: CollectionRecord): Schemas['Collection'] {
  const { name, documents, createdAt, updatedAt } = record;
  return {
    name,
    object: 'collection',
    documents,
    tool: name === CORPUS ? 'search' : `search_${name}`,
    created_at: time(createdAt),
    updated_at: time(updatedAt),
  };
}
