/**
 * A policy directory for tests in the manner of Llama 3.1: header tokens around the role, JSON
 * calls with `parameters`, results in an ipython turn, one call a turn. The vocabulary is trained
 * on a few lines; there are no weights.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { trainBpe } from '../bpe-trainer.ts';

const TEMPLATE = `{{- bos_token }}
{%- macro header(role) %}{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}{%- endmacro %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- header('ipython') + (message.content | tojson) + '<|eot_id|>' }}
    {%- elif message.tool_calls %}
        {%- if message.tool_calls | length > 1 %}
            {{- raise_exception('one call a turn') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- header('assistant') + '{"name": "' + call.name + '", "parameters": ' }}
        {{- (call.arguments | tojson) + '}<|eot_id|>' }}
    {%- else %}
        {{- header(message.role) }}
        {%- if tools and loop.first %}
            {%- for tool in tools %}{{- (tool | tojson) + '\\n' }}{%- endfor %}
        {%- endif %}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- header('assistant') }}{%- endif %}
`;

/** Writes the directory's text files, with the template in tokenizer_config.json. */
export function writeLlamaFiles(directory: string): void {
  const ends = ['<|begin_of_text|>', '<|eot_id|>', '<|eom_id|>'];
  const specialTokens = [...ends, '<|start_header_id|>', '<|end_header_id|>', '<|python_tag|>'];
  const texts = Array.from({ length: 20 }, () => 'user assistant ipython name parameters tool ');
  const tokenizer = trainBpe(texts, { vocabularySize: 320, specialTokens });
  const added = tokenizer.added_tokens as { content: string; id: number }[];
  const id = (content: string) => added.find((token) => token.content === content)?.id;
  const write = (name: string, value: unknown): void =>
    writeFileSync(join(directory, name), JSON.stringify(value));
  write('tokenizer.json', tokenizer);
  write('tokenizer_config.json', {
    bos_token: '<|begin_of_text|>',
    eos_token: '<|eot_id|>',
    chat_template: TEMPLATE,
  });
  write('generation_config.json', { eos_token_id: [id('<|eom_id|>'), id('<|eot_id|>')] });
}
