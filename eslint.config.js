/**
 * Lint as architecture: imports go api -> db -> core, each library has one home, nothing floats,
 * and time, randomness and the environment are passed in. What needs the whole tree (cycles, file
 * heads, names) is in test/tidy.test.ts.
 */
import { dirname, join, relative } from 'node:path';
import js from '@eslint/js';
import tseslint from 'typescript-eslint';

/** Where a library may be imported: path prefixes. Tests and scripts may import any. */
const LIBRARY_HOMES = {
  hono: ['api/'],
  '@hono/node-server': ['api/'],
  pino: ['api/main.ts'],
  yaml: ['api/contract/', 'api/tools-file.ts'],
  undici: ['core/tools/http/'],
  'ipaddr.js': ['core/tools/http/'],
  ajv: ['api/contract/', 'core/tools/'],
  'ajv-formats': ['api/contract/', 'core/tools/'],
  'drizzle-orm': ['db/'],
  'better-sqlite3': ['db/'],
  'onnxruntime-node': ['core/model/session.ts'],
  '@modelcontextprotocol/sdk': ['core/tools/mcp/', 'api/mcp/'],
  'quickjs-emscripten': ['core/tools/'],
  '@huggingface/tokenizers': ['core/text/'],
  '@huggingface/jinja': ['core/text/'],
  'node:worker_threads': ['core/engine/', 'core/tools/', 'db/search-', 'api/export-'],
  'node:child_process': [
    'core/engine/',
    'core/tools/mcp/',
    'core/tools/python-sandbox.ts',
    'core/trainer/',
  ],
};

/** What each folder may import besides itself; `core` means the files directly in core/. */
const FOLDER_IMPORTS = {
  api: ['db', 'core', 'core/*'],
  db: ['core'],
  core: [],
  'core/graph': ['core'],
  'core/text': ['core'],
  'core/tools': ['core'],
  'core/model': ['core', 'core/graph'],
  'core/engine': ['core', 'core/model', 'core/text'],
  'core/agent': ['core', 'core/text', 'core/arpo'],
  'core/arpo': ['core', 'core/agent', 'core/model'],
  'core/trainer': ['core', 'core/model', 'core/agent', 'core/arpo'],
};

/** Folder as FOLDER_IMPORTS names it, of a path from the root. */
function folderOf(path) {
  const [top, inner, ...rest] = path.split('/');
  return top === 'core' && rest.length > 0 ? `core/${inner}` : top;
}

function isTestCode(path) {
  return path.endsWith('.test.ts') || path.includes('/testing/') || !/^(api|core|db)\//.test(path);
}

/** Why the product file `path` (from the root, with /) must not import `specifier`, or null. */
export function importFault(path, specifier) {
  if (isTestCode(path)) return null;
  if (!specifier.startsWith('.')) {
    const library = Object.keys(LIBRARY_HOMES).find(
      (name) => specifier === name || specifier.startsWith(`${name}/`),
    );
    const homes = LIBRARY_HOMES[library];
    if (homes === undefined || homes.some((home) => path.startsWith(home))) return null;
    return `${library} is used only in ${homes.join(' and ')}.`;
  }
  const target = join(dirname(path), specifier).replaceAll('\\', '/');
  if (isTestCode(target)) return `Product code must not import ${target}.`;
  const [from, to] = [folderOf(path), folderOf(target)];
  const allowed = FOLDER_IMPORTS[from] ?? [];
  if (from === to || allowed.includes(to)) return null;
  if (to.startsWith('core/') && allowed.includes('core/*')) return null;
  return `${from} must not import ${to}: imports go api -> db -> core, and inside core by layer.`;
}

const importRule = {
  meta: { type: 'problem', schema: [] },
  create(context) {
    const path = relative(import.meta.dirname, context.filename).replaceAll('\\', '/');
    const check = (node) => {
      if (typeof node.source?.value !== 'string') return;
      const message = importFault(path, node.source.value);
      if (message !== null) context.report({ node, message });
    };
    return {
      ImportDeclaration: check,
      ImportExpression: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
    };
  },
};

export default tseslint.config(
  { ignores: ['**/dist/', 'data/', '**/node_modules/', '**/*.gen.ts', 'coverage/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    plugins: { ramify: { rules: { imports: importRule } } },
    rules: {
      'ramify/imports': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { prefer: 'type-imports' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      eqeqeq: ['error', 'always'],
    },
  },
  {
    files: ['{api,core,db}/**/*.ts'],
    ignores: ['**/*.test.ts', '**/testing/**'],
    rules: {
      'no-console': 'error',
      'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true }],
      'no-restricted-properties': [
        'error',
        banned('Math', 'random', 'Use core/prng.ts: randomness is passed in.'),
        banned('Date', 'now', 'Use core/clock.ts: time is passed in.'),
        banned('process', 'env', 'Settings come from api/config.ts; main.ts passes them in.'),
      ],
    },
  },
  {
    // The one place of each.
    files: ['core/prng.ts', 'core/clock.ts', 'api/main.ts'],
    rules: { 'no-restricted-properties': 'off' },
  },
  {
    // Answers of a server under test are `any` until an assertion names their shape.
    files: ['**/*.test.ts', '**/testing/**', 'test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
    },
  },
  {
    files: ['**/*.js', '**/*.mjs'],
    languageOptions: {
      globals: {
        console: 'readonly',
        performance: 'readonly',
        process: 'readonly',
        setTimeout: 'readonly',
        URL: 'readonly',
      },
    },
  },
);

function banned(object, property, message) {
  return { object, property, message };
}
