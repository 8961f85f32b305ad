/** Facts about sampling parameters that more than one part asks for. */
import type { SamplingParams } from './records.ts';

/**
 * Whether tokens are drawn from the full distribution at temperature 1, so that their behaviour
 * log-probabilities are their log-probabilities.
 */
export function drawsFullDistribution(sampling: SamplingParams): boolean {
  const { temperature, topP, topK, minP = 0, minTokens = 0, constraint } = sampling;
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = sampling;
  const uncut = topP === 1 && topK === 0 && minP === 0;
  const unpenalised = repetitionPenalty === 1 && presencePenalty === 0 && frequencyPenalty === 0;
  const unmasked =
    minTokens === 0 &&
    constraint === undefined &&
    Object.keys(sampling.logitBias ?? {}).length === 0;
  return temperature === 1 && uncut && unpenalised && unmasked;
}
