/**
 * Builds the package into dist/: the contract's types, where a field with a default may be left out
 * (the server's own types have it always), and this package's sources. scripts/setup.mjs runs it;
 * packages come from the root's node_modules.
 */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const CLIENT = dirname(fileURLToPath(import.meta.url));
const ROOT = dirname(CLIENT);

run('openapi-typescript/bin/cli.js', [
  join(ROOT, 'openapi.yaml'),
  '--default-non-nullable=false',
  '-o',
  join(CLIENT, 'src', 'openapi.gen.ts'),
]);
rmSync(join(CLIENT, 'dist'), { recursive: true, force: true });
run('typescript/bin/tsc', ['-p', CLIENT]);

function run(script, flags) {
  const path = join(ROOT, 'node_modules', script);
  // The generator greets on standard output.
  const { status } = spawnSync(process.execPath, [path, ...flags], {
    stdio: ['ignore', script.startsWith('openapi') ? 'ignore' : 'inherit', 'inherit'],
  });
  if (status !== 0) process.exit(status ?? 1);
}
