/** Folders are made, found, or refused at once. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { makeFolder } from './make-folder.ts';

const root = mkdtempSync(join(tmpdir(), 'ramify-folder-'));
afterEach(() => rmSync(root, { recursive: true, force: true }));

it('makes what is missing and leaves what is there', () => {
  const folder = join(root, 'a', 'b', 'c');
  makeFolder(folder);
  makeFolder(folder);
  expect(statSync(folder).isDirectory()).toBe(true);
});

it('refuses a file in the way', () => {
  makeFolder(root);
  writeFileSync(join(root, 'file'), '');
  expect(() => makeFolder(join(root, 'file'))).toThrowError(/EEXIST/);
  expect(() => makeFolder(join(root, 'file', 'below'))).toThrowError(/EEXIST|ENOTDIR/);
});

it('refuses a place that takes no folders', () => {
  expect(() => makeFolder('/proc/ramify/data')).toThrowError(/ENOENT|EACCES|EPERM|EROFS/);
});
