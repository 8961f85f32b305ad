/**
 * Lint as architecture: imports go api -> db -> core, each library has one home, nothing floats.
 */
import js from '@eslint/js';
import tseslint from 'typescript-eslint';

const HOMES = {
  hono: 'api/',
  '@hono/node-server': 'api/',
  ajv: 'api/ and core/tools/',
  'drizzle-orm': 'db/',
  'better-sqlite3': 'db/',
  'onnxruntime-node': 'core/model/session.ts',
  'quickjs-emscripten': 'core/tools/',
  '@huggingface/tokenizers': 'core/text/',
  '@huggingface/jinja': 'core/text/',
  pino: 'api/',
};

const home = (...names) =>
  names.map((name) => ({
    group: [name, `${name}/*`],
    message: `${name} is used only in ${HOMES[name]}.`,
  }));

const folders = (...names) =>
  names.map((name) => ({
    regex: `^(\\.\\./)+${name}/`,
    message: `Imports go api -> db -> core: this folder must not import ${name}/.`,
  }));

const restrict = (files, patterns, ignores = []) => ({
  files,
  ignores,
  rules: { 'no-restricted-imports': ['error', { patterns }] },
});

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', 'api/contract/*.gen.ts', 'coverage/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { prefer: 'type-imports' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      '@typescript-eslint/require-await': 'off',
      'no-restricted-properties': [
        'error',
        {
          object: 'Math',
          property: 'random',
          message: 'Use core/prng.ts: randomness is passed in.',
        },
        { object: 'Date', property: 'now', message: 'Use core/clock.ts: time is passed in.' },
      ],
      eqeqeq: ['error', 'always'],
      'no-console': 'error',
    },
  },
  {
    files: ['core/prng.ts', 'core/clock.ts', 'scripts/**', 'bench/**', '**/*.test.ts', 'test/**'],
    rules: { 'no-restricted-properties': 'off', 'no-console': 'off' },
  },
  {
    files: ['**/*.test.ts', 'test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
    },
  },
  restrict(
    ['core/**/*.ts'],
    [
      ...folders('api', 'db'),
      ...home('hono', '@hono/node-server', 'drizzle-orm', 'better-sqlite3', 'pino'),
    ],
  ),
  restrict(
    ['db/**/*.ts'],
    [
      ...folders('api'),
      ...home('hono', '@hono/node-server', 'onnxruntime-node', 'quickjs-emscripten', 'pino'),
    ],
  ),
  restrict(
    ['api/**/*.ts'],
    home('drizzle-orm', 'better-sqlite3', 'onnxruntime-node', 'quickjs-emscripten'),
  ),
  restrict(
    ['core/graph/**/*.ts'],
    [
      ...folders('api', 'db', 'model', 'engine', 'agent', 'trainer', 'tools', 'text', 'arpo'),
      ...home('onnxruntime-node'),
    ],
    ['core/graph/*.test.ts'],
  ),
  {
    files: ['**/*.js', '**/*.mjs'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        URL: 'readonly',
        setTimeout: 'readonly',
      },
    },
    rules: { 'no-console': 'off' },
  },
);
