/** Tests of how Markdown becomes documents. */
import { expect, test } from 'vitest';
import { LIMITS } from '../../core/limits.ts';
import { markdownDocuments } from './markdown.ts';

test('a document a section, with the headings above it', () => {
  const text = [
    '---\ntitle: x\n---',
    'Before all.',
    '# Guide',
    '## Install ##',
    'Run it.',
    '```sh',
    '# not a heading',
    '```',
    '### On Linux',
    'As root.',
    '## Use',
    '',
    '# Other',
    '#no heading',
  ].join('\n');
  expect(markdownDocuments('a/b.md', text)).toEqual([
    { id: 'a/b.md', title: 'a/b.md', text: 'Before all.' },
    {
      id: 'a/b.md#guide#install',
      title: 'Guide > Install',
      text: 'Run it.\n```sh\n# not a heading\n```',
    },
    { id: 'a/b.md#guide#install#on-linux', title: 'Guide > Install > On Linux', text: 'As root.' },
    { id: 'a/b.md#other', title: 'Other', text: '#no heading' },
  ]);
});

test('ids are different, whatever the headings are, and never too long', () => {
  const section = (heading: string) => `# ${heading}\nx\n`;
  const long = 'y'.repeat(500);
  const text = [section('A'), section('A'), section('!'), section(long), section(long)].join('');
  const ids = markdownDocuments('f.md', `${text}### Deep\nx`).map(({ id }) => id);
  expect(new Set(ids).size).toBe(6);
  expect(ids.slice(0, 3)).toEqual(['f.md#a', 'f.md#a-2', 'f.md#']);
  for (const id of ids) expect(id.length).toBeLessThanOrEqual(200);
});

test('a section over the limit is several', () => {
  const documents = markdownDocuments('f.md', 'z'.repeat(2 * LIMITS.documentCharsMax + 1));
  expect(documents.map(({ text }) => text.length)).toEqual([
    LIMITS.documentCharsMax,
    LIMITS.documentCharsMax,
    1,
  ]);
  expect(documents.map(({ id }) => id)).toEqual(['f.md', 'f.md-2', 'f.md-3']);
});
