/**
 * Cold-start traces as training rows: the tokens exactly as the agent loop would have them (prompt
 * by the chat template, results by the protocol), loss on what the policy writes and on nothing
 * else.
 */
import { must } from '../../core/assert.ts';
import type { TrainRow } from '../../core/model/types.ts';
import type { ToolSpec } from '../../core/ports.ts';
import type { TextLayer } from '../../core/text/load-text.ts';
import type { Trace } from './traces.ts';

export function traceRow(trace: Trace, text: TextLayer, tools: readonly ToolSpec[]): TrainRow {
  const { tokenizer, protocol } = text;
  const tokens: number[] = protocol.renderPrompt(
    [{ role: 'user', content: trace.question }],
    tools,
  );
  const weights: number[] = tokens.map(() => 0);
  const push = (added: readonly number[], weight: number): void => {
    for (const token of added) {
      tokens.push(token);
      weights.push(weight);
    }
  };
  trace.steps.forEach((step, i) => {
    if (step.kind === 'policy') {
      push(tokenizer.encodeTemplate(step.text), 1);
      if (i === trace.steps.length - 1) push([endOfTurn(text)], 1);
    } else {
      // The tag protocol shows a result without the name of its tool.
      push(protocol.renderToolResults([{ name: 'search', result: step.text }]), 0);
    }
  });
  const length = tokens.length;
  return {
    tokens: Uint32Array.from(tokens),
    weights: Float32Array.from(weights),
    advantages: new Float32Array(length).fill(1),
    oldLogprobs: new Float32Array(length),
  };
}

function endOfTurn({ tokenizer }: TextLayer): number {
  return must(tokenizer.tokenId('<|im_end|>'), 'the embedded tokenizer has <|im_end|>');
}
