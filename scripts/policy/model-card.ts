/** The model card of the embedded policy: what it is, how it was made, what it can do. */
import { parameterCount } from '../../core/model/parameters.ts';
import type { ModelConfig } from '../../core/model/types.ts';
import { evaluationTable, type PolicyEvaluation } from './evaluation.ts';
import { COLD_START } from './recipe.ts';

export interface BuildFacts {
  config: ModelConfig;
  steps: number;
  tokens: number;
  minutes: number;
  /** Cores and processor of the machine. */
  machine: string;
  evaluation: PolicyEvaluation;
  /** Seed of the sampled evaluation. */
  seed: number;
}

/** Markdown with the front matter of Hugging Face's model cards. */
export function modelCard(facts: BuildFacts): string {
  const { config, steps, tokens, minutes } = facts;
  const ideal = Math.round(100 * COLD_START.idealShare);
  return `---
license: apache-2.0
library_name: ramify
language: en
---

# ramify embedded policy

A decoder of the Llama family with ${parameterCount(config).toLocaleString('en')} parameters
(${config.layers} layers, width ${config.hidden}, ${config.heads} query and ${config.kvHeads} key/value
heads, vocabulary ${config.vocabulary}, context ${config.contextTokens}), trained from nothing to answer
three families of questions with two tools. It speaks ARPO's tag protocol and knows nothing else:
outside these tasks its text is meaningless. It is meant to be improved by ramify's own training.

## How it was made

\`npm run policy:build\`, seed ${COLD_START.seed}: ${steps} steps of ${COLD_START.rowsPerStep} generated
traces (${tokens.toLocaleString('en')} tokens) on the training split, ${ideal} % of the steps on ideal
traces and the rest on traces with deliberate mistakes, as the paper's supervised cold start before
RL. It took ${minutes.toFixed(1)} minutes on ${facts.machine}. No held-out question or entity chain
was used. Facts come from \`world-countries\` (ODbL, see \`corpus/LICENSE-NOTE.md\`) at question time,
through the search tool.

## Held-out accuracy

\`npm run policy:eval -- --seed ${facts.seed}\`: split \`test\`, one trajectory a task, sampled at
temperature 1 (the server's default) and greedy. A task counts as right when the format is well
formed and the answer is right in full.

${evaluationTable(facts.evaluation)}
`;
}
