/**
 * The functional relations of the knowledge base: a subject has exactly one value, so a chain of
 * them has exactly one answer. Built from the cleaned countries; a subject whose value is missing,
 * tied or ambiguous simply lacks that relation. Knows nothing of documents, tasks or search.
 */
import { must } from '../../core/assert.ts';
import type { Country } from './countries.ts';

/** `to: 'country'` relations can be followed further; the others end a chain. */
export const RELATIONS = {
  'country with capital': { from: 'city', to: 'country' },
  capital: { from: 'country', to: 'city' },
  currency: { from: 'country', to: 'word' },
  'official language': { from: 'country', to: 'word' },
  subregion: { from: 'country', to: 'word' },
  'largest neighbour': { from: 'country', to: 'country' },
  'smallest neighbour': { from: 'country', to: 'country' },
  area: { from: 'country', to: 'number' },
  'number of neighbours': { from: 'country', to: 'number' },
} as const;

export type Relation = keyof typeof RELATIONS;

export const RELATION_NAMES = Object.keys(RELATIONS) as Relation[];

/** Relation -> subject -> value, all as text. Subjects keep the order of the countries. */
export class Facts {
  private readonly tables = new Map<Relation, Map<string, string>>();

  constructor(entries: Iterable<readonly [Relation, string, string]>) {
    for (const name of RELATION_NAMES) this.tables.set(name, new Map());
    for (const [relation, subject, value] of entries) this.table(relation).set(subject, value);
  }

  value(relation: Relation, subject: string): string | undefined {
    return this.table(relation).get(subject);
  }

  subjects(relation: Relation): string[] {
    return [...this.table(relation).keys()];
  }

  /** Distinct values, in order of first appearance. */
  values(relation: Relation): string[] {
    return [...new Set(this.table(relation).values())];
  }

  private table(relation: Relation): Map<string, string> {
    return must(this.tables.get(relation), `unknown relation ${relation}`);
  }
}

export function buildFacts(countries: readonly Country[]): Facts {
  const byCode = new Map(countries.map((country) => [country.code, country]));
  const capitals = countBy(countries.flatMap(({ capital }) => capital ?? []));
  const entries: [Relation, string, string][] = [];
  for (const country of countries) {
    const add = (relation: Relation, value: string | number | null | undefined): void => {
      if (value !== null && value !== undefined && value !== '') {
        entries.push([relation, country.name, String(value)]);
      }
    };
    const { capital } = country;
    // A capital with its country's name (Singapore) would make the reverse question a riddle.
    if (capital !== null && capitals.get(capital) === 1 && capital !== country.name) {
      add('capital', capital);
      entries.push(['country with capital', capital, country.name]);
    }
    add('currency', only(country.currencies));
    add('official language', only(country.languages));
    add('subregion', country.subregion);
    add('area', country.area);
    if (country.neighbours.length > 0) add('number of neighbours', country.neighbours.length);
    add('largest neighbour', extremeNeighbour(country, byCode, 1));
    add('smallest neighbour', extremeNeighbour(country, byCode, -1));
  }
  return new Facts(entries);
}

/** The neighbour of largest (sign 1) or smallest (sign -1) area; null if unknown or tied. */
function extremeNeighbour(
  country: Country,
  byCode: ReadonlyMap<string, Country>,
  sign: 1 | -1,
): string | null {
  if (country.neighbours.length === 0) return null;
  const neighbours = country.neighbours.map((code) => byCode.get(code));
  const areas = neighbours.map((neighbour) => neighbour?.area ?? null);
  if (areas.some((area) => area === null)) return null;
  const scores = areas.map((area) => sign * (area ?? 0));
  const best = Math.max(...scores);
  if (scores.filter((score) => score === best).length > 1) return null;
  return neighbours[scores.indexOf(best)]?.name ?? null;
}

function only(values: readonly string[]): string | null {
  return values.length === 1 ? (values[0] ?? null) : null;
}

function countBy(values: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}
