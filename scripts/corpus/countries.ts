/**
 * The countries of the npm package world-countries, cleaned for the knowledge base: names in plain
 * Latin letters, borders that both sides agree on, and no entry that would make a question
 * ambiguous. Knows the package's layout; knows nothing of relations, documents or tasks.
 */
import { createRequire } from 'node:module';
import { must } from '../../core/assert.ts';

/** One entry as the package has it (only the fields that are read here). */
interface SourceCountry {
  name: { common: string; official: string };
  cca2: string;
  cca3: string;
  tld: string[];
  unMember: boolean;
  currencies: Record<string, { name: string }>;
  idd: { root: string; suffixes: string[] };
  capital: string[];
  region: string;
  subregion: string;
  languages: Record<string, string>;
  translations: Record<string, { common: string }>;
  demonyms?: Record<string, { m: string }>;
  landlocked: boolean;
  borders: string[];
  area: number;
}

export interface Country {
  /** ISO 3166 alpha-3. */
  code: string;
  alpha2: string;
  name: string;
  officialName: string;
  /** Null where the source names none, or several, or where which city it is is disputed. */
  capital: string | null;
  currencies: string[];
  languages: string[];
  region: string;
  subregion: string;
  /** Whole square kilometres; null where the source has none or a fraction. */
  area: number | null;
  /** Alpha-3 codes of land neighbours, in the order of the source. */
  neighbours: string[];
  callingCode: string | null;
  domain: string | null;
  demonym: string | null;
  landlocked: boolean;
  unMember: boolean;
  /** Names in other languages, as they are; only those in plain ASCII letters. */
  translations: { language: string; name: string }[];
}

/**
 * Entries left out: no permanent population, or a name that is long or easily taken for another
 * one (the two halves of one island, the two Kingstons).
 */
const LEFT_OUT: ReadonlySet<string> = new Set([
  'ATA',
  'ATF',
  'BES',
  'BVT',
  'CCK',
  'HMD',
  'IOT',
  'MAF',
  'NFK',
  'SGS',
  'SHN',
  'SJM',
  'SXM',
  'UMI',
]);

/** The package names one capital, but which city it is, or whose, is disputed or outdated. */
const CAPITAL_DISPUTED: ReadonlySet<string> = new Set([
  'BOL',
  'ESH',
  'HKG',
  'ISR',
  'LKA',
  'PSE',
  'SWZ',
]);

const TRANSLATIONS = { deu: 'German', fra: 'French', ita: 'Italian', spa: 'Spanish' } as const;

/** Letters that Unicode decomposition leaves as they are. */
const LETTERS: Record<string, string> = {
  \u0142: 'l',
  \u0141: 'L',
  \u0111: 'd',
  \u0110: 'D',
  '\u02bb': "'",
  '\u2019': "'",
};

const ASCII = /^[\x20-\x7e]+$/;

/** The usual spelling without diacritics: `São Tomé` becomes `Sao Tome`. */
export function plainName(name: string): string {
  const base = name.normalize('NFD').replace(/\p{M}/gu, '');
  return [...base].map((letter) => LETTERS[letter] ?? letter).join('');
}

/** All kept countries, by name. Pure: the same package version gives the same list. */
export function loadCountries(): Country[] {
  const load = createRequire(import.meta.url);
  const source = load('world-countries/countries.json') as SourceCountry[];
  const byCode = new Map(source.map((entry) => [entry.cca3, entry]));
  const kept = source.filter((entry) => !LEFT_OUT.has(entry.cca3));
  return kept
    .map((entry) => clean(entry, byCode))
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function clean(entry: SourceCountry, byCode: Map<string, SourceCountry>): Country {
  // A border that only one side lists is an error of the source (Sri Lanka and India).
  const mutual = entry.borders.filter((code) =>
    must(byCode.get(code), `unknown neighbour ${code}`).borders.includes(entry.cca3),
  );
  const { root, suffixes } = entry.idd;
  return {
    code: entry.cca3,
    alpha2: entry.cca2,
    name: plainName(entry.name.common),
    officialName: plainName(entry.name.official),
    capital: capitalOf(entry),
    currencies: Object.values(entry.currencies).map((currency) => plainName(currency.name)),
    languages: Object.values(entry.languages).map(plainName),
    region: entry.region,
    subregion: entry.subregion,
    area: Number.isInteger(entry.area) && entry.area > 0 ? entry.area : null,
    neighbours: mutual,
    callingCode: root !== '' && suffixes.length === 1 ? `${root}${suffixes[0] ?? ''}` : null,
    domain: entry.tld[0] !== undefined && ASCII.test(entry.tld[0]) ? entry.tld[0] : null,
    demonym: entry.demonyms?.['eng'] ? plainName(entry.demonyms['eng'].m) || null : null,
    landlocked: entry.landlocked,
    unMember: entry.unMember,
    translations: translationsOf(entry),
  };
}

function capitalOf(entry: SourceCountry): string | null {
  const [first, second] = entry.capital;
  if (first === undefined || second !== undefined) return null;
  return CAPITAL_DISPUTED.has(entry.cca3) ? null : plainName(first);
}

function translationsOf(entry: SourceCountry): Country['translations'] {
  return Object.entries(TRANSLATIONS).flatMap(([code, language]) => {
    const name = entry.translations[code]?.common;
    return name !== undefined && ASCII.test(name) ? [{ language, name }] : [];
  });
}
