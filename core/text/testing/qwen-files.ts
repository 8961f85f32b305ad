/**
 * A policy directory for tests in the form of Qwen2.5: ChatML, JSON tool calls, <tool_call> as an
 * added token that is not special. The vocabulary is trained on a few lines; there are no weights.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { trainBpe } from '../bpe-trainer.ts';

export const QWEN_TEMPLATE = `{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nFunctions inside <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif message.role != "system" %}
        {{- raise_exception('no such role: ' + message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
`;

const TEXTS = Array.from(
  { length: 20 },
  () => 'user assistant system name arguments tool response ',
);

/** Writes the directory's text files; the template goes to chat_template.jinja. */
export function writeQwenFiles(directory: string, template = QWEN_TEMPLATE): void {
  const special = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<tool_call>', '</tool_call>'];
  const tokenizer = trainBpe(TEXTS, { vocabularySize: 320, specialTokens: special });
  for (const token of tokenizer.added_tokens as { content: string; special: boolean }[]) {
    token.special = token.content.startsWith('<|');
  }
  const write = (name: string, value: unknown): void =>
    writeFileSync(join(directory, name), JSON.stringify(value));
  write('tokenizer.json', tokenizer);
  write('tokenizer_config.json', { eos_token: { content: '<|im_end|>' } });
  writeFileSync(join(directory, 'chat_template.jinja'), template);
}
