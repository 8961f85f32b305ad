/**
 * The collections of documents and the tools that search them, kept together: a collection that
 * comes or goes, here or by another program, is a tool that comes or goes without a restart.
 */
import type { Logger } from '../core/log.ts';
import { LIMITS } from '../core/limits.ts';
import { searchTool } from '../core/tools/search-tool.ts';
import type { ToolRegistry } from '../core/tools/registry.ts';
import { CORPUS } from '../db/collection-store.ts';
import type { CollectionStore } from '../db/collection-store.ts';

/** Of the registry; an MCP server's group has its name, which has no blank. */
const GROUP = 'search collections';

/** Puts `search_NAME` of every collection but the default one into the registry. */
export function offerCollections(registry: ToolRegistry, store: CollectionStore): void {
  const names = store.list().map(({ name }) => name);
  const others = names.filter((name) => name !== CORPUS);
  const tools = others.map((collection) => searchTool(store.slowIndex(collection), { collection }));
  registry.replaceGroup(GROUP, tools);
}

export class Collections {
  readonly store: CollectionStore;
  private readonly registry: ToolRegistry;
  private readonly logger: Logger;
  private readonly timer: NodeJS.Timeout;
  private version = -1;
  private names = '';

  constructor(store: CollectionStore, registry: ToolRegistry, logger: Logger) {
    this.store = store;
    this.registry = registry;
    this.logger = logger;
    this.changed();
    this.timer = setInterval(() => this.look(), LIMITS.collectionsPollMs).unref();
  }

  /** After documents came or a collection went. */
  changed(): void {
    const names = JSON.stringify(this.store.list().map(({ name }) => name));
    if (names === this.names) return;
    this.names = names;
    offerCollections(this.registry, this.store);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  /** For what other programs did. */
  private look(): void {
    try {
      const version = this.store.version();
      if (version === this.version) return;
      this.version = version;
      this.changed();
    } catch (thrown) {
      this.logger.warn({ err: thrown }, 'the collections cannot be read');
    }
  }
}
