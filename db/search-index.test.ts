/** The search index on the shipped knowledge base: finds what is asked, survives odd queries. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../core/paths.ts';
import { matchExpression, openSearchIndex } from './search-index.ts';

const corpus = join(packageRoot, 'corpus', 'documents.jsonl');
const folder = mkdtempSync(join(tmpdir(), 'ramify-search-'));
const index = openSearchIndex(corpus);

afterAll(() => {
  index.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Titles of the facts that tasks ask for, each with its document. */
const FUNCTIONAL = new RegExp(
  '^(country with capital|' +
    '(capital|currency|subregion|area|official language|number of neighbours|\\w+ neighbour) of) ',
);

describe('search index', () => {
  it('holds the shipped corpus and finds every fact by its natural query among the top 2', () => {
    expect(index.size).toBeGreaterThanOrEqual(1000);
    const facts = index.search('Portugal', 50).filter(({ title }) => FUNCTIONAL.test(title));
    expect(facts.map(({ title }) => title)).toContain('capital of Portugal');
    for (const fact of facts) {
      const hits = index.search(`What is the ${fact.title}?`, 2);
      expect(hits.map(({ id }) => id)).toContain(fact.id);
    }
  });

  it('ranks a whole name above longer names that contain it', () => {
    expect(index.search('area of Guinea', 2)[0]?.title).toBe('area of Guinea');
    expect(index.search('capital of Niger', 1)[0]?.text).toBe('The capital of Niger is Niamey.');
    expect(index.search('largest neighbour of Portugal', 1)[0]?.text).toBe(
      'The largest neighbour of Portugal is Spain.',
    );
  });

  it('ignores case and diacritics', () => {
    expect(index.search('CAPITAL of São Tomé and Príncipe', 1)[0]?.title).toBe(
      'capital of Sao Tome and Principe',
    );
  });

  it('never fails on syntax, quotes or nothing at all', () => {
    const odd = [
      '',
      '   ',
      '"',
      '""" OR',
      'NEAR(',
      'title:x AND',
      '*',
      'a-b^2',
      '\u0000',
      '🇵🇹',
      "'; --",
    ];
    for (const query of odd) expect(() => index.search(query, 2)).not.toThrow();
    expect(index.search('"', 2)).toEqual([]);
    expect(index.search('zzzzqqq', 2)).toEqual([]);
    expect(index.search('Portugal', 0)).toEqual([]);
    expect(index.search('Lisbon '.repeat(100_000), 1)).toHaveLength(1);
  });

  it('answers the same query the same way, scores falling, best first', () => {
    const first = index.search('neighbour', 20);
    expect(index.search('neighbour', 20)).toEqual(first);
    const scores = first.map(({ score }) => score);
    expect([...scores].sort((a, b) => b - a)).toEqual(scores);
  });

  it('orders equal scores by position', () => {
    const rows = ['c', 'a', 'b'].map((id) => ({ id, title: 'same', text: 'same words' }));
    const small = openSearchIndex(rows);
    expect(small.search('same', 3).map(({ id }) => id)).toEqual(['c', 'a', 'b']);
    small.close();
  });

  it('can live in a file, rebuilt when opened again', () => {
    const database = join(folder, 'index.sqlite');
    openSearchIndex([{ id: '1', title: 'old', text: 'old' }], { database }).close();
    const again = openSearchIndex([{ id: '2', title: 'new', text: 'new' }], { database });
    expect(existsSync(database)).toBe(true);
    expect(again.search('old new', 5).map(({ id }) => id)).toEqual(['2']);
    again.close();
  });

  it('names the file and line that it cannot read', () => {
    expect(() => openSearchIndex(join(folder, 'missing.jsonl'))).toThrow(/missing\.jsonl/);
    const broken = join(folder, 'broken.jsonl');
    writeFileSync(broken, '{"id":"1","title":"t","text":"x"}\n{"id":2}\n');
    expect(() => openSearchIndex(broken)).toThrow(/broken\.jsonl:2 has no id, title and text/);
  });
});

describe('matchExpression', () => {
  it('quotes each telling word once', () => {
    expect(matchExpression('What is the Capital of the capital?')).toBe('"capital"');
    expect(matchExpression('the of')).toBe('"the" OR "of"');
    expect(matchExpression('?!')).toBeNull();
  });
});
