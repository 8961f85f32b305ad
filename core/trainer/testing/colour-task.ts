/**
 * A tiny real task for tests of the trainer: the policy may look up the colour of a thing and must
 * name it. It speaks the tag protocol with a real tokenizer; its weights are a bigram table that
 * knows the format and guesses the colour, so what is left to learn is which colour is right.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EpisodeContext } from '../../agent/types.ts';
import { must } from '../../assert.ts';
import { systemClock } from '../../clock.ts';
import { idGenerator } from '../../ids.ts';
import { createTokenTable } from './token-table.ts';
import type { ModelConfig, Weights } from '../../model/types.ts';
import type { ToolRunner } from '../../ports.ts';
import { Prng } from '../../prng.ts';
import type { Task } from '../../records.ts';
import { writeEmbeddedTextFiles } from '../../text/embedded-text-files.ts';
import { bigramConfig, bigramWeights } from './bigram-policy.ts';
import { testTask } from './test-job.ts';

export const COLOURS = ['red', 'blue', 'green', 'pink'] as const;
const THINGS = ['sky', 'sea', 'rose', 'leaf'] as const;
const CONTEXT_TOKENS = 96;

export interface ColourSetting {
  /** A policy directory with the text files; weights are not in it. */
  directory: string;
  context: EpisodeContext;
  config: ModelConfig;
  /**
   * Fresh weights at each call: half of the answers follow a search, colours are guessed evenly.
   */
  freshWeights(): Weights;
  remove(): void;
}

/** Tasks of two families; all of them are answered by `colour`. */
export function colourTasks(colour: string, count: number): Task[] {
  return Array.from({ length: count }, (_, n) =>
    testTask({
      id: `task_${n}`,
      family: n % 2 === 0 ? 'sky' : 'sea',
      question: `colour of the ${THINGS[n % THINGS.length] as string}`,
      truths: [colour],
      tools: ['search'],
    }),
  );
}

const tools: ToolRunner = {
  has: (name) => name === 'search',
  specs: () => [{ name: 'search', description: 'Looks up.', parameters: {}, effects: 'none' }],
  call: async () => ({
    result: 'a thing',
    error: null,
    durationMs: 0,
    effects: 'none',
    served: 'live',
  }),
};

export function createColourSetting(): ColourSetting {
  const directory = mkdtempSync(join(tmpdir(), 'ramify-colour-'));
  const words = [...COLOURS, ...THINGS, 'colour of the', 'a thing', '\\boxed{'];
  const random = new Prng(1);
  const { tokenizer, protocol } = writeEmbeddedTextFiles(directory, {
    texts: Array.from({ length: 500 }, () => random.shuffle(words).join(' ')),
    vocabularySize: 340,
    tools: ['search'],
  });
  const clock = systemClock;
  const context = { tokenizer, protocol, tools, clock, newId: idGenerator(clock) };
  const prompt = protocol.renderPrompt([{ role: 'user', content: 'colour of the sky' }], []);
  const start = must(prompt.at(-1), 'a prompt has tokens');
  const table = createTokenTable((text) => tokenizer.encodeTemplate(text));
  table.path([start, '<search>', 'sky', '</search>']);
  table.path([start, '<answer>']);
  table.path(['</result>', '<answer>']);
  for (const colour of COLOURS) {
    table.path(['<answer>', '\\boxed{', colour, '}', '</answer>', '<|im_end|>']);
  }
  const config = bigramConfig(tokenizer.vocabularySize, CONTEXT_TOKENS);
  return {
    directory,
    context,
    config,
    freshWeights: () => bigramWeights(tokenizer.vocabularySize, table.logit),
    remove: () => rmSync(directory, { recursive: true }),
  };
}
