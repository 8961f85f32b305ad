/**
 * Rules that need the whole tree: file heads, names, sizes, forbidden words, import cycles, dead
 * files, and that nothing of one machine is committed. Import direction and library homes are
 * lint's (eslint.config.js); their table is tried out here, so that a rule that stopped working is
 * seen.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { dirname, join as joinPath } from 'node:path/posix';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';
import { expect, test } from 'vitest';
import { packageRoot } from '../core/paths.ts';

const LINES_MAX = 500;
const COLUMNS_MAX = 100;
const NOT_OURS = new Set(['.git', 'node_modules', 'dist', 'data', 'coverage']);
/** Of the client's package. */
const MADE = new Set(['node_modules', 'dist']);
/** Started by name: by node, npm or a test runner, not by an import. */
const ENTRIES =
  /^(api\/(cli\/)?main\.ts|client\/src\/index\.ts|(scripts|bench|test)\/.*|.*\.test\.ts|.*\.config\.ts)$/;

/** Plain definitions that only tests call, to hold the fast path against them. */
const SLOW_TWINS = ['core/arpo/loss-definition.ts', 'core/graph/reference.ts'];

/** Files from the root, with / on every system. */
function walk(folder: string): string[] {
  return readdirSync(join(packageRoot, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = joinPath(folder, entry.name);
    const foreign = folder === '' ? NOT_OURS.has(entry.name) : MADE.has(entry.name);
    if (foreign) return [];
    return entry.isDirectory() ? walk(path) : [path];
  });
}

const paths = walk('');
const isCode = (path: string): boolean => /\.(ts|mjs|js)$/.test(path);
const isText = (path: string): boolean =>
  isCode(path) || /\.(md|ya?ml|json|html|css|sql)$|(^|\/)\.?[a-z]+(rc|ignore)?$/.test(path);
const code = paths.filter((path) => isCode(path) && !path.endsWith('.gen.ts'));
const textOf = new Map(
  paths
    .filter((path) => isText(path) && path !== 'package-lock.json')
    .map((path) => [path, readFileSync(join(packageRoot, path), 'utf8')]),
);

/** `path:line: text` of every line of these files that is at fault. */
function faults(among: Iterable<string>, isFault: (line: string) => boolean): string[] {
  return [...among].flatMap((path) =>
    (textOf.get(path) ?? '')
      .split(/\r?\n/)
      .flatMap((line, i) => (isFault(line) ? [`${path}:${i + 1}: ${line.trim()}`] : [])),
  );
}

interface Loads {
  /** Needed at run time. */
  values: string[];
  /** Erased by the compiler. */
  types: string[];
}

/** Files that a file imports, now or later, and modules that it names for a thread or child. */
function loadedBy(path: string): Loads {
  const text = textOf.get(path)!;
  const loads: Loads = { values: [], types: [] };
  const add = (kind: keyof Loads, specifier: string): void => {
    if (specifier.startsWith('.')) loads[kind].push(joinPath(dirname(path), specifier));
  };
  for (const node of ts.createSourceFile(path, text, ts.ScriptTarget.Latest).statements) {
    if (!ts.isImportDeclaration(node) && !ts.isExportDeclaration(node)) continue;
    const specifier = node.moduleSpecifier;
    if (specifier === undefined || !ts.isStringLiteral(specifier)) continue;
    const clause = ts.isImportDeclaration(node) ? node.importClause : node;
    add(clause?.isTypeOnly ? 'types' : 'values', specifier.text);
  }
  for (const match of text.matchAll(/\bimport\('([^']+)'\)/g)) add('types', match[1]!);
  for (const match of text.matchAll(/builtModule\([^,]+, '([^']+)'\)/g)) add('types', match[1]!);
  return loads;
}

const loads = new Map(code.map((path) => [path, loadedBy(path)]));

test('the walk finds the project', () => {
  expect(paths).toContain('core/limits.ts');
  expect(loads.get('api/main.ts')!.values).toContain('api/config.ts');
  expect(loads.get('api/app.ts')!.types).toContain('db/stores.ts');
});

test('every source file says on line 1 what it is for', () => {
  expect(code.filter((path) => !textOf.get(path)!.startsWith('/**'))).toEqual([]);
});

test('file names are kebab-case', () => {
  expect(
    code.filter((path) => !/^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z]+)+$/.test(path.split('/').pop()!)),
  ).toEqual([]);
});

test('files and comment lines are short', () => {
  const long = code.filter((path) => textOf.get(path)!.split('\n').length - 1 > LINES_MAX);
  expect(long).toEqual([]);
  // Code is the formatter's matter; it leaves comments as they are.
  const wide = (line: string): boolean =>
    [...line].length > COLUMNS_MAX && /^\s*(\*|\/[/*])/.test(line) && !/https?:\/\//.test(line);
  expect(faults(code, wide)).toEqual([]);
});

test('nothing is left for later, and no test is left out or alone', () => {
  // Spelt in two parts, because this file is walked too.
  const later = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX'].join('|')})\\b`);
  expect(faults(textOf.keys(), (line) => later.test(line))).toEqual([]);
  const leftOut = /\b(test|it|describe)(\.\w+)*\.(only|skip|skipIf|runIf|todo|fails)\b/;
  expect(faults(code, (line) => leftOut.test(line))).toEqual([]);
});

test('no path of one machine and no registry is committed', () => {
  const local = /(^|[\s'"`(=])(\/root|\/work|\/home\/\w+|\/Users\/\w+|[A-Z]:\\Users)[\\/]/;
  const registry = /\bregistry\.[a-z-]+\.[a-z]|:\/\/npm\./i;
  const fault = (line: string): boolean => local.test(line) || registry.test(line);
  expect(faults(textOf.keys(), fault)).toEqual([]);
});

test('imports make no cycle at run time', () => {
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) {
      cycles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
      return;
    }
    if (done.has(path)) return;
    for (const next of loads.get(path)?.values ?? []) visit(next, [...trail, path]);
    done.add(path);
  };
  for (const path of loads.keys()) visit(path, []);
  expect(cycles).toEqual([]);
});

test('every product file is loaded by another one; tests and helpers do not count', () => {
  const helper = /\.test\.ts$|\/testing\/|^test\//;
  const used = new Set(
    [...loads].flatMap(([path, { values, types }]) =>
      helper.test(path) ? [] : [...values, ...types],
    ),
  );
  const dead = code.filter(
    (path) => path.endsWith('.ts') && !ENTRIES.test(path) && !helper.test(path) && !used.has(path),
  );
  expect(dead).toEqual(SLOW_TWINS);
});

test.each([
  ['core/agent/episode.ts', '../../db/open.ts', 'core/agent must not import db'],
  ['core/agent/episode.ts', '../../api/config.ts', 'core/agent must not import api'],
  ['db/open.ts', '../api/config.ts', 'db must not import api'],
  ['db/open.ts', '../core/arpo/loss.ts', 'db must not import core/arpo'],
  ['core/graph/graph.ts', '../model/config.ts', 'core/graph must not import core/model'],
  ['core/errors.ts', './arpo/loss.ts', 'core must not import core/arpo'],
  ['api/app.ts', './testing/harness.ts', 'Product code must not import api/testing/harness.ts'],
  ['core/prng.ts', '../scripts/tasks/plan.ts', 'Product code must not import scripts/'],
  ['core/engine/sequence-kv.ts', 'onnxruntime-node', 'only in core/model/session.ts'],
  ['api/app.ts', 'drizzle-orm/sqlite-core', 'only in db/'],
  ['db/open.ts', 'hono', 'only in api/'],
])('lint: %s must not import %s', async (path, specifier, message) => {
  expect((await lintTable()).importFault(path, specifier)).toContain(message);
});

test.each([
  ['api/app.ts', '../db/stores.ts'],
  ['api/app.ts', '../core/engine/types.ts'],
  ['core/model/session.ts', 'onnxruntime-node'],
  ['core/trainer/train.ts', '../arpo/loss.ts'],
  ['db/open.test.ts', '../api/config.ts'],
])('lint: %s may import %s', async (path, specifier) => {
  expect((await lintTable()).importFault(path, specifier)).toBeNull();
});

interface LintTable {
  importFault: (path: string, specifier: string) => string | null;
}

async function lintTable(): Promise<LintTable> {
  const url = pathToFileURL(join(packageRoot, 'eslint.config.js')).href;
  return (await import(url)) as LintTable;
}
