/**
 * Where the package's files are, whether this code runs as TypeScript (tests) or from dist/
 * (server). Node 20 cannot load a .ts worker, so threads and child processes always start from
 * dist/.
 */
import { existsSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { AppError } from './errors.ts';

/** The folder that holds package.json and openapi.yaml. */
export const packageRoot: string = findRoot(dirname(fileURLToPath(import.meta.url)));

function findRoot(from: string): string {
  for (let dir = from; dir !== dirname(dir); dir = dirname(dir)) {
    if (existsSync(join(dir, 'package.json'))) return dir;
  }
  throw new AppError('internal', `internal: no package.json above ${from}`);
}

/** The built JavaScript of a module given beside the caller, e.g. `./worker.ts`. */
export function builtModule(callerUrl: string, module: string): URL {
  const source = fileURLToPath(new URL(module, callerUrl));
  const inDist = join(packageRoot, 'dist');
  const base = source.startsWith(inDist) ? source : join(inDist, relative(packageRoot, source));
  const built = base.replace(/\.ts$/, '.js');
  if (!existsSync(built)) {
    throw new AppError('internal', `internal: ${built} is not built; run: node scripts/setup.mjs`);
  }
  return pathToFileURL(built);
}
