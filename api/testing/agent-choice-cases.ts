/** Cases of agent runs whose first step has a demanded form. */
import { expect } from 'vitest';
import type { Case } from './cases.ts';
import { CAPITAL_SCRIPT } from './harness.ts';
import type { Answer, Harness } from './harness.ts';

const agent = (h: Harness, body: object): Promise<Answer> => h.call('createAgentRun', { body });

/** One case for each choice of the first step that cannot be. */
const WRONG_CHOICES: Case[] = [
  ['a tool that is not offered', { tool_choice: named('javascript'), tools: ['search'] }],
  ['a call without tools', { tool_choice: 'required' }],
  ['a call after a least number of tokens', { tool_choice: 'required', min_tokens: 2 }],
].map(([what, fields]): Case => ({
  operation: 'createAgentRun',
  what: `tool_choice: ${what as string}`,
  status: 400,
  code: 'invalid_request',
  call: (h) => agent(h, { input: 'x', ...(fields as object) }),
  check: (_, h) => expect(h.engine.stats().openSequences).toBe(0),
}));

function named(name: string): object {
  return { type: 'function', function: { name } };
}

export const AGENT_CHOICE_CASES: Case[] = [
  ...WRONG_CHOICES,
  {
    operation: 'createAgentRun',
    what: 'tool_choice demands the form of the first step alone',
    status: 200,
    call: (h) => {
      h.engine.script = CAPITAL_SCRIPT;
      return agent(h, { input: 'x', tools: ['search'], tool_choice: named('search') });
    },
    check: ({ body }, h) => {
      const { steps } = h.deps.stores.trajectories.get(body.trajectory_id as string);
      const written = steps.filter(({ kind }) => kind === 'policy');
      const demanded = written.map(({ sampling }) => sampling?.constraint !== undefined);
      expect(demanded).toEqual([true, false]);
    },
  },
];
