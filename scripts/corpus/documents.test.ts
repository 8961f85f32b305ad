/** The knowledge base: as committed, large enough, unambiguous, and found by its own words. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../core/paths.ts';
import { openSearchIndex } from '../../db/search-index.ts';
import { loadCountries, plainName } from './countries.ts';
import { buildDocuments, factSentence, relationPhrase, toJsonLines } from './documents.ts';
import { buildFacts, RELATION_NAMES } from './facts.ts';

const countries = loadCountries();
const facts = buildFacts(countries);
const documents = buildDocuments();

describe('corpus', () => {
  it('is committed byte by byte as the builder writes it', () => {
    const committed = readFileSync(join(packageRoot, 'corpus', 'documents.jsonl'), 'utf8');
    expect(toJsonLines(documents) === committed).toBe(true);
  });

  it('has at least 200 countries and 1,000 short ASCII documents with unique ids', () => {
    expect(countries.length).toBeGreaterThanOrEqual(200);
    expect(documents.length).toBeGreaterThanOrEqual(1000);
    expect(new Set(documents.map(({ id }) => id)).size).toBe(documents.length);
    for (const { text } of documents) {
      expect(text).toMatch(/^[\x20-\x7e]+$/);
      expect(text.length).toBeLessThanOrEqual(120);
    }
  });

  it('states facts that are well known', () => {
    expect(facts.value('capital', 'Portugal')).toBe('Lisbon');
    expect(facts.value('country with capital', 'Lisbon')).toBe('Portugal');
    expect(facts.value('largest neighbour', 'Germany')).toBe('France');
    expect(facts.value('smallest neighbour', 'Germany')).toBe('Luxembourg');
    expect(facts.value('currency', 'Japan')).toBe('Japanese yen');
    expect(facts.value('number of neighbours', 'Austria')).toBe('8');
    expect(facts.value('area', 'Portugal')).toBe('92090');
  });

  it('leaves out what has no single value', () => {
    expect(facts.value('capital', 'South Africa')).toBeUndefined();
    expect(facts.value('official language', 'Belgium')).toBeUndefined();
    expect(facts.value('largest neighbour', 'Iceland')).toBeUndefined();
    expect(facts.value('number of neighbours', 'Sri Lanka')).toBeUndefined();
    expect(facts.value('country with capital', 'Singapore')).toBeUndefined();
  });

  it('finds at least 99 % of all facts in the top 2 of the natural query', () => {
    const index = openSearchIndex(documents);
    let asked = 0;
    let found = 0;
    for (const relation of RELATION_NAMES) {
      for (const subject of facts.subjects(relation)) {
        const sentence = factSentence(relation, subject, facts.value(relation, subject) ?? '');
        const hits = index.search(relationPhrase(relation, subject), 2);
        asked += 1;
        if (hits.some(({ text }) => text === sentence)) found += 1;
      }
    }
    index.close();
    expect(asked).toBeGreaterThan(1500);
    expect(found / asked).toBeGreaterThanOrEqual(0.99);
  });

  it('writes names in plain Latin letters', () => {
    expect(plainName('São Tomé')).toBe('Sao Tome');
    expect(plainName('Polish złoty')).toBe('Polish zloty');
    expect(plainName('Vietnamese đồng')).toBe('Vietnamese dong');
  });
});
