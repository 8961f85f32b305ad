/**
 * `npm test`: setup, formatting, lint of code and contract, generated types and all tests, in that
 * order, each timed. What follows `--` goes to vitest, and then only setup and those tests run:
 * `npm test -- core/graph`. The last line counts vitest's tests and the checks before them. Types
 * are proven by the build in setup, fresh migrations by db/migrations.test.ts. Plain Node, because
 * setup may install packages.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const GENERATED = join('api', 'contract', 'openapi.gen.ts');
const counts = { passed: 0, failed: 0, skipped: 0 };
const vitestFlags = process.argv.slice(2);

// Without packages and a build nothing else can be judged.
if (check('setup: packages, types, build', () => node(join('scripts', 'setup.mjs')))) {
  if (vitestFlags.length === 0) {
    check('prettier', () => bin('prettier/bin/prettier.cjs', '--check', '--log-level=warn', '.'));
    check('eslint', () => bin('eslint/bin/eslint.js', '--max-warnings=0', '.'));
    check('redocly', () => node(join('scripts', 'contract', 'lint.mjs')));
    check('generated contract is fresh', contractIsFresh);
  }
  timed('vitest', runVitest);
}
const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
console.log(`${counts.passed} passed, ${counts.failed} failed${skipped}`);
process.exitCode = counts.failed === 0 ? 0 : 1;

/** Prints a heading, the work's own output and the time it took. */
function timed(title, work) {
  console.log(`\n== ${title}`);
  const startedAt = performance.now();
  const result = work();
  console.log(`== ${title}: ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
  return result;
}

/** A timed step that counts as one test. */
function check(title, work) {
  const ok = timed(title, work);
  if (!ok) console.log(`== ${title}: FAILED`);
  counts[ok ? 'passed' : 'failed']++;
  return ok;
}

function node(script, ...args) {
  const { status } = spawnSync(process.execPath, [script, ...args], {
    cwd: ROOT,
    stdio: 'inherit',
  });
  return status === 0;
}

function bin(script, ...args) {
  return node(join('node_modules', script), ...args);
}

function contractIsFresh() {
  const cli = join('node_modules', 'openapi-typescript', 'bin', 'cli.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, 'openapi.yaml'], {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0) console.log(stderr);
  // A checkout may have turned line ends.
  const same = stdout === readFileSync(join(ROOT, GENERATED), 'utf8').replaceAll('\r\n', '\n');
  if (status === 0 && !same) console.log(`${GENERATED} differs from openapi.yaml: npm run gen`);
  return status === 0 && same;
}

function runVitest() {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-test-'));
  const report = join(folder, 'report.json');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const ok = bin('vitest/vitest.mjs', 'run', ...reporters, ...vitestFlags);
  const found = countTests(report);
  rmSync(folder, { recursive: true, force: true });
  // A crash, an unhandled rejection or an empty selection fails the run without a failed test.
  if (!ok && found.failed === 0) found.failed = 1;
  for (const key of Object.keys(counts)) counts[key] += found[key];
}

/** Counts of vitest's JSON report; a file that could not be loaded is one failure. */
function countTests(report) {
  const found = { passed: 0, failed: 0, skipped: 0 };
  if (!existsSync(report)) return found;
  const { testResults } = JSON.parse(readFileSync(report, 'utf8'));
  for (const { status, assertionResults } of testResults) {
    if (status === 'failed' && !assertionResults.some((test) => test.status === 'failed')) {
      found.failed++;
    }
    for (const test of assertionResults) {
      found[test.status === 'passed' || test.status === 'failed' ? test.status : 'skipped']++;
    }
  }
  return found;
}
