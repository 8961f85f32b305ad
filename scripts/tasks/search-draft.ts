/** Turns a chain over the facts into a question with its truth; shared by both search families. */
import { must } from '../../core/assert.ts';
import type { Prng } from '../../core/prng.ts';
import type { Facts } from '../corpus/facts.ts';
import type { Draft } from './family.ts';
import { chainKey, chainMetadata, planOf, questionOf, walk, WORDINGS } from './plan.ts';
import type { Chain } from './plan.ts';

export function searchDraft(chain: Chain, facts: Facts, prng: Prng, tools: string[]): Draft {
  const walked = must(walk(planOf(chain), facts), `the chain ${chainKey(chain)} breaks off`);
  return {
    key: chainKey(chain),
    question: questionOf(chain, prng.below(WORDINGS)),
    truths: [walked.answer],
    verifier: 'qa-f1',
    tools,
    metadata: chainMetadata(chain),
  };
}
