/**
 * Facts written out as short documents, one sentence each, for the search tool. An entity name is
 * always preceded by a space and stands at the end of the sentence where it is the value: a small
 * policy learns to copy it from there. Besides the relations that tasks ask for there are other
 * true facts about the same entities, so that search has something to confuse them with.
 */
import { buildFacts, RELATION_NAMES } from './facts.ts';
import { loadCountries } from './countries.ts';
import type { Country } from './countries.ts';
import type { Facts, Relation } from './facts.ts';

export interface CorpusDocument {
  id: string;
  title: string;
  text: string;
}

/** `capital of Portugal`, `country with capital Lisbon`: the title, and the query that finds it. */
export function relationPhrase(relation: Relation, subject: string): string {
  return relation === 'country with capital'
    ? `country with capital ${subject}`
    : `${relation} of ${subject}`;
}

/** The sentence that states a fact. */
export function factSentence(relation: Relation, subject: string, value: string): string {
  const unit = relation === 'area' ? ' square kilometres' : '';
  return `The ${relationPhrase(relation, subject)} is ${value}${unit}.`;
}

/** The shipped knowledge base, in the order of corpus/documents.jsonl. */
export function buildDocuments(): CorpusDocument[] {
  const countries = loadCountries();
  const facts = buildFacts(countries);
  const names = new Map(countries.map((country) => [country.code, country.name]));
  return countries.flatMap((country) => [
    ...functionalDocuments(country, facts),
    ...listDocuments(country, names),
    ...distractors(country),
  ]);
}

/** One document a line. */
export function toJsonLines(rows: readonly unknown[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

function document(country: Country, kind: string, title: string, text: string): CorpusDocument {
  return { id: `doc_${country.code}_${kind.replaceAll(' ', '_')}`, title, text };
}

function functionalDocuments(country: Country, facts: Facts): CorpusDocument[] {
  return RELATION_NAMES.flatMap((relation) => {
    const subject = relation === 'country with capital' ? country.capital : country.name;
    const value = subject === null ? undefined : facts.value(relation, subject);
    if (subject === null || value === undefined) return [];
    const text = factSentence(relation, subject, value);
    return [document(country, relation, relationPhrase(relation, subject), text)];
  });
}

/** Facts with several values; lists are cut into short pieces so that no result is long. */
function listDocuments(country: Country, names: ReadonlyMap<string, string>): CorpusDocument[] {
  const { name } = country;
  const out: CorpusDocument[] = [];
  if (country.languages.length > 1) {
    const some = country.languages.slice(0, 3).join(', ');
    out.push(
      document(country, 'languages', `languages of ${name}`, `Languages of ${name}: ${some}.`),
    );
  }
  if (country.currencies.length > 1) {
    const some = country.currencies.slice(0, 3).join(', ');
    out.push(
      document(country, 'currencies', `currencies of ${name}`, `Currencies of ${name}: ${some}.`),
    );
  }
  const neighbours = country.neighbours.flatMap((code) => names.get(code) ?? []);
  for (let i = 0; i < neighbours.length; i += 3) {
    const some = neighbours.slice(i, i + 3).join(', ');
    const kind = `neighbours_${i / 3 + 1}`;
    out.push(document(country, kind, `neighbours of ${name}`, `Neighbours of ${name}: ${some}.`));
  }
  return out;
}

function distractors(country: Country): CorpusDocument[] {
  const { name } = country;
  const out: CorpusDocument[] = [];
  const add = (attribute: string, value: string | null): void => {
    if (value === null || value === '') return;
    const title = `${attribute} of ${name}`;
    out.push(document(country, attribute, title, `The ${title} is ${value}.`));
  };
  add('continental region', country.region);
  add('internet domain', country.domain);
  add('calling code', country.callingCode);
  add('demonym', country.demonym);
  add('official name', country.officialName === name ? null : country.officialName);
  add('alpha-2 code', country.alpha2);
  add('alpha-3 code', country.code);
  for (const { language, name: translated } of country.translations) {
    add(`${language} name`, translated);
  }
  const coast = country.landlocked ? 'is landlocked' : 'is not landlocked';
  out.push(document(country, 'coast', `coast of ${name}`, `The territory of ${name} ${coast}.`));
  const member = country.unMember ? 'is a member' : 'is not a member';
  const text = `In the United Nations, ${name} ${member}.`;
  out.push(document(country, 'un', `United Nations membership of ${name}`, text));
  return out;
}
