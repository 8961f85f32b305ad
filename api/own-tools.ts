/**
 * The tools that ramify brings itself, in a registry of their own, for the server, the command line
 * and the trainer.
 */
import { join } from 'node:path';
import { systemClock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import { packageRoot } from '../core/paths.ts';
import type { SearchIndex } from '../core/ports.ts';
import { javascriptTool } from '../core/tools/javascript-tool.ts';
import { offerPython } from '../core/tools/python-tool.ts';
import { createToolRegistry } from '../core/tools/registry.ts';
import type { ToolRegistry } from '../core/tools/registry.ts';
import { searchTool } from '../core/tools/search-tool.ts';
import { CORPUS, readCollections } from '../db/collection-store.ts';
import type { CollectionStore } from '../db/collection-store.ts';
import { openSearchIndex } from '../db/search-index.ts';
import { offerCollections } from './collections.ts';

type Cleanups = (() => void | Promise<void>)[];

/** The documents that ship with ramify. */
export const shippedDocuments: string = join(packageRoot, 'corpus', 'documents.jsonl');

export const collectionsFile = (dataFolder: string): string => join(dataFolder, 'collections.db');

/** Without collections `search` knows the shipped documents. Ends are put into `cleanups`. */
export async function startOwnTools(
  collections: CollectionStore | null,
  logger: Logger,
  cleanups: Cleanups,
): Promise<ToolRegistry> {
  const javascript = javascriptTool();
  cleanups.push(() => javascript.stop());
  const own = [searchTool(collections?.slowIndex(CORPUS) ?? shippedIndex(cleanups)), javascript];
  const python = await offerPython();
  if ('tool' in python) own.push(python.tool);
  else logger.info({ tool: 'python' }, `python is not offered: ${python.fault}`);
  const registry = createToolRegistry(own, { clock: systemClock, log: logger });
  if (collections !== null) offerCollections(registry, collections);
  return registry;
}

/** As they are in a file, beside a server that may write it; null when there is none. */
export function storedCollections(path: string, cleanups: Cleanups): CollectionStore | null {
  const store = readCollections(path, systemClock);
  if (store !== null) cleanups.push(() => store.close());
  return store;
}

function shippedIndex(cleanups: Cleanups): SearchIndex {
  const index = openSearchIndex(shippedDocuments);
  cleanups.push(() => index.close());
  return index;
}
