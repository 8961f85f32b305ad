/**
 * One test project: unit tests beside their source, cross-part tests under test/. Two workers at
 * most, because the machine that must run this has two cores and the engine tests use both.
 */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['{api,core,db,scripts,bench}/**/*.test.ts', 'test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
