/**
 * What is committed of the experiments is what the script makes of the committed records: the text
 * files in docs/evidence/arpo, and the block of the README. Pictures are compared as SVG.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../core/paths.ts';
import { EVIDENCE } from './options.ts';
import { makeReport, withBlock } from './report.ts';

const report = await makeReport(EVIDENCE);

it('the README states what the records say', () => {
  const readme = readFileSync(join(packageRoot, 'README.md'), 'utf8').replaceAll('\r\n', '\n');
  expect(withBlock(readme, report.block)).toBe(readme);
});

it('tables and figures are those of the records', () => {
  const read = (name: string): string =>
    readFileSync(join(EVIDENCE, name), 'utf8').replaceAll('\r\n', '\n');
  const names = (existsSync(EVIDENCE) ? readdirSync(EVIDENCE) : []).filter((name) =>
    /\.(md|svg)$/.test(name),
  );
  expect(new Map(names.map((name) => [name, read(name)]))).toEqual(
    new Map([...report.files].sort(([a], [b]) => (a < b ? -1 : 1))),
  );
});

it('a README without the marks is refused', () => {
  expect(() => withBlock('no marks', report.block)).toThrow('has no block');
});
