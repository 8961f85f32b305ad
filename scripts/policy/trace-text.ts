/** The policy's text in the tag protocol: one thought and one action a step. */
import type { TraceStep } from './traces.ts';

export function searchStep(thought: string, query: string): TraceStep {
  return policy(thought, `<search>${query}</search>`);
}

export function javascriptStep(thought: string, expression: string): TraceStep {
  return policy(thought, `<javascript>${expression}</javascript>`);
}

/** The space gives the answer the token that it has in running text, where it is copied from. */
export function answerStep(thought: string, answer: string): TraceStep {
  return policy(thought, `<answer>\\boxed{ ${answer}}</answer>`);
}

export function toolStep(result: string): TraceStep {
  return { kind: 'tool', text: result };
}

function policy(thought: string, action: string): TraceStep {
  return { kind: 'policy', text: `<think>${thought}</think>${action}` };
}
