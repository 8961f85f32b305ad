/** The family `knowledge`: one or two searches, the second on what the first found. */
import type { Facts } from '../corpus/facts.ts';
import { drawPath } from './chains.ts';
import type { Family } from './family.ts';
import { searchDraft } from './search-draft.ts';

/** One hop is soon mastered and there are fewer such chains: a third is enough. */
const ONE_HOP_SHARE = 0.33;

export function knowledgeFamily(facts: Facts): Family {
  return {
    name: 'knowledge',
    draw(prng) {
      const oneHop = prng.next() < ONE_HOP_SHARE;
      // One hop has nine relations, and only one of them starts at a city.
      const chain = oneHop ? drawPath(facts, prng, 1, 0.12) : drawPath(facts, prng, 2);
      return searchDraft(chain, facts, prng, ['search']);
    },
  };
}
