/**
 * A short form of npm run fuzz:models: thousands of damaged checkpoints in this process. Every one
 * loads correctly or is refused by policy_invalid, and both happen often for every file.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { runCase, writeCorpus } from './model-case.ts';

const home = mkdtempSync(join(tmpdir(), 'ramify-fuzz-'));
afterAll(() => rmSync(home, { recursive: true }));
const corpus = writeCorpus(home);

describe('damaged checkpoints', () => {
  it('load correctly or are refused (3,000 cases)', { timeout: 120_000 }, async () => {
    const fates = new Map([...corpus.keys()].map((file) => [file, { loaded: 0, refused: 0 }]));
    for (let index = 0; index < 3_000; index++) {
      const { outcome, file, reason } = await runCase(home, corpus, { seed: 7, index });
      if (outcome === 'failed') throw new Error(`case ${index}, ${file}: ${reason}`);
      fates.get(file)![outcome]++;
    }
    const refused = [...fates.values()].reduce((sum, fate) => sum + fate.refused, 0);
    const loaded = [...fates.values()].reduce((sum, fate) => sum + fate.loaded, 0);
    expect(refused).toBeGreaterThan(1_000);
    expect(loaded).toBeGreaterThan(300);
  });
});
