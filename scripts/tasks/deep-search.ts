/**
 * The family `deep-search`: three or four searches in a row; in about two of five questions the
 * numbers found are added or subtracted by the javascript tool.
 */
import type { Facts } from '../corpus/facts.ts';
import { drawCombined, drawPath } from './chains.ts';
import type { Family } from './family.ts';
import { searchDraft } from './search-draft.ts';

const TOOLS = ['search', 'javascript'];

export function deepSearchFamily(facts: Facts): Family {
  return {
    name: 'deep-search',
    draw(prng) {
      const kind = prng.next();
      const chain =
        kind < 0.4
          ? drawPath(facts, prng, 3)
          : kind < 0.6
            ? drawPath(facts, prng, 4)
            : drawCombined(facts, prng, kind < 0.76 ? 'pair3' : kind < 0.9 ? 'pair4' : 'fork');
      return searchDraft(chain, facts, prng, TOOLS);
    },
  };
}
