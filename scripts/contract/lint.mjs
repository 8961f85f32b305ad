/**
 * Lints the contract by the rules of redocly.yaml: `npm run lint`, and a step of `npm test`. Every
 * finding fails, warnings too. Plain Node, because nothing of it needs the build.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatProblems, getTotals, lint, loadConfig } from '@redocly/openapi-core';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const config = await loadConfig({ configPath: join(ROOT, 'redocly.yaml') });
const problems = await lint({ ref: join(ROOT, 'openapi.yaml'), config });
formatProblems(problems, { totals: getTotals(problems), cwd: ROOT, version: '' });
process.exitCode = problems.length === 0 ? 0 : 1;
