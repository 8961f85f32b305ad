/** The committed types are those of openapi.yaml: regenerates them and compares. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import openapiTS, { astToString, COMMENT_HEADER } from 'openapi-typescript';
import { expect, test } from 'vitest';
import { packageRoot } from '../../core/paths.ts';
import { contractPath } from './contract.ts';

test('openapi.gen.ts is fresh; if not: npm run gen', async () => {
  const fresh = COMMENT_HEADER + astToString(await openapiTS(pathToFileURL(contractPath)));
  const path = join(packageRoot, 'api/contract/openapi.gen.ts');
  expect(readFileSync(path, 'utf8')).toBe(fresh);
});
