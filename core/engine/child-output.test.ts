/** Modules of this test in processes of their own, which print more than a result. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { LIMITS } from '../limits.ts';
import { childOutput } from './child-output.ts';

const folder = mkdtempSync(join(tmpdir(), 'ramify-child-'));
afterAll(() => rmSync(folder, { recursive: true }));

function outputOf(name: string, source: string) {
  const file = join(folder, `${name}.mjs`);
  writeFileSync(file, source);
  return childOutput(pathToFileURL(file), [], 20_000);
}

test('lines of a driver among the results are skipped, whatever they look like', async () => {
  const { lines, ended } = await outputOf(
    'talkative',
    `console.log('{driver: ready}\\n{"found":1}\\nplain\\n{"cut":');
    process.stdout.write('{"unfinished":2}');`,
  );
  expect(lines).toEqual([{ found: 1 }]);
  expect(ended).toBe(null);
});

test('who prints without end is ended, and what came before is kept', async () => {
  const { lines, ended } = await outputOf(
    'endless',
    `console.log('{"found":1}');
    const more = () => process.stdout.write('noise '.repeat(10_000), more);
    more();`,
  );
  expect(lines).toEqual([{ found: 1 }]);
  expect(ended).toBe(`it printed more than ${LIMITS.childOutputCharsMax} characters`);
});
