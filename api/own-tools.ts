/**
 * The tools that ramify brings itself, in a registry of their own, for the server, the command line
 * and the trainer.
 */
import { join } from 'node:path';
import { systemClock } from '../core/clock.ts';
import type { Logger } from '../core/log.ts';
import { packageRoot } from '../core/paths.ts';
import { javascriptTool } from '../core/tools/javascript-tool.ts';
import { offerPython } from '../core/tools/python-tool.ts';
import { createToolRegistry } from '../core/tools/registry.ts';
import type { ToolRegistry } from '../core/tools/registry.ts';
import { searchTool } from '../core/tools/search-tool.ts';
import { openSearchIndex } from '../db/search-index.ts';

/** What was started puts its end into `cleanups`. */
export async function startOwnTools(
  logger: Logger,
  cleanups: (() => void | Promise<void>)[],
): Promise<ToolRegistry> {
  const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
  cleanups.push(() => index.close());
  const javascript = javascriptTool();
  cleanups.push(() => javascript.stop());
  const own = [searchTool(index), javascript];
  const python = await offerPython();
  if ('tool' in python) own.push(python.tool);
  else logger.info({ tool: 'python' }, `python is not offered: ${python.fault}`);
  return createToolRegistry(own, { clock: systemClock, log: logger });
}
