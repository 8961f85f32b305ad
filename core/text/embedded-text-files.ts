/**
 * Writes the text files of the embedded policy: a BPE tokenizer trained on the given texts, a short
 * ChatML template without any default system prompt (the policy is tiny and its context is short),
 * and ramify.json with its tags. The weights are not made here.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { must } from '../assert.ts';
import { trainBpe } from './bpe-trainer.ts';
import { loadText, readToolTags } from './load-text.ts';
import type { TextLayer } from './load-text.ts';
import { tagTokens } from './tag-protocol.ts';
import type { ToolTag } from './tag-protocol.ts';

/**
 * A tool call and its result stay in the open assistant turn, as while sampling; the next user
 * message or answer closes it. The tools need no text: their tags are in the weights.
 */
const CHAT_TEMPLATE = [
  '{%- set turn = namespace(open=false) -%}',
  '{%- for message in messages -%}',
  "{%- if message.role == 'assistant' -%}",
  "{%- if not turn.open -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}",
  '{{- message.content -}}',
  '{%- if message.tool_calls -%}',
  '{%- set turn.open = true -%}',
  '{%- for call in message.tool_calls -%}',
  "{{- '<' + call.function.name + '>' -}}",
  '{%- for name, value in call.function.arguments.items() -%}{{- value -}}{%- endfor -%}',
  "{{- '</' + call.function.name + '>' -}}",
  '{%- endfor -%}',
  '{%- else -%}',
  '{%- set turn.open = false -%}',
  "{{- '<|im_end|>\\n' -}}",
  '{%- endif -%}',
  "{%- elif message.role == 'tool' -%}",
  "{{- '<result>' + message.content + '</result>' -}}",
  '{%- else -%}',
  "{%- if turn.open -%}{{- '<|im_end|>\\n' -}}{%- endif -%}",
  '{%- set turn.open = false -%}',
  "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}",
  '{%- endif -%}',
  '{%- endfor -%}',
  "{%- if add_generation_prompt and not turn.open -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}",
].join('');

/** Every prompt writes these role names: as single tokens they save a dozen tokens of context. */
const ROLE_TEXT = 'user\nassistant\n'.repeat(20_000);

export interface EmbeddedTextOptions {
  /** What the policy will read and write; special tokens in them are split off. */
  texts: Iterable<string>;
  /** Upper bound; few texts give fewer tokens. */
  vocabularySize: number;
  /** Names of shipped tools, or {name, argument}. */
  tools: readonly (string | ToolTag)[];
}

/**
 * Writes tokenizer.json, tokenizer_config.json, generation_config.json and ramify.json, and returns
 * them loaded. Deterministic: equal options write equal bytes.
 */
export function writeEmbeddedTextFiles(directory: string, options: EmbeddedTextOptions): TextLayer {
  const tools = readToolTags([...options.tools]);
  const specialTokens = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', ...tagTokens(tools)];
  const tokenizer = trainBpe(withRoles(options.texts), {
    vocabularySize: options.vocabularySize,
    specialTokens,
  });
  const added = tokenizer.added_tokens as { id: number; content: string }[];
  const idOf = (text: string): number =>
    must(
      added.find((token) => token.content === text),
      'a special token of the list above',
    ).id;
  mkdirSync(directory, { recursive: true });
  const write = (name: string, value: unknown): void =>
    writeFileSync(join(directory, name), `${JSON.stringify(value, null, 1)}\n`);
  write('tokenizer.json', tokenizer);
  write('tokenizer_config.json', {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: null,
    eos_token: '<|im_end|>',
    pad_token: '<|endoftext|>',
    additional_special_tokens: specialTokens,
    clean_up_tokenization_spaces: false,
    chat_template: CHAT_TEMPLATE,
  });
  write('generation_config.json', {
    eos_token_id: [idOf('<|im_end|>'), idOf('<|endoftext|>')],
    pad_token_id: idOf('<|endoftext|>'),
  });
  write('ramify.json', { protocol: 'tags', tools });
  return loadText(directory);
}

function* withRoles(texts: Iterable<string>): Generator<string> {
  yield ROLE_TEXT;
  yield* texts;
}
