/**
 * The text layer of a policy directory: its tokenizer, and the protocol it speaks. The small file
 * ramify.json names the protocol; without one, a chat template that speaks of <tool_call> means
 * Hermes, one that speaks of ipython turns means Llama 3.1, and any other makes no calls: guessing
 * would make calls that never parse.
 */
import { join } from 'node:path';
import { AppError } from '../errors.ts';
import { JsonFields } from '../json-fields.ts';
import { invalidFile } from '../json-file.ts';
import { loadChatTemplate, tokenText, type ChatTemplate } from './chat-template.ts';
import { HERMES_CALLS, LLAMA_CALLS, NO_CALLS, type CallSyntax } from './call-syntax.ts';
import { endTexts } from './continuation.ts';
import { endTokens, readGenerationConfig, type GenerationConfig } from './generation-config.ts';
import { isObject, readOptionalJson } from './policy-files.ts';
import { FIXED_TAGS, TagProtocol } from './tag-protocol.ts';
import type { ToolTag } from './tag-protocol.ts';
import { loadTokenizer } from './tokenizer.ts';
import type { BpeTokenizer } from './tokenizer.ts';
import { TurnProtocol } from './turn-protocol.ts';
import type { Protocol } from './types.ts';

export interface TextLayer {
  tokenizer: BpeTokenizer;
  protocol: Protocol;
  /** How its makers mean it to be sampled. */
  generation: GenerationConfig;
}

const SYNTAXES = [HERMES_CALLS, LLAMA_CALLS, NO_CALLS];

/** The string argument of the tools that ramify ships; ramify.json may leave these out. */
const SHIPPED_ARGUMENTS: Readonly<Record<string, string>> = { search: 'query', javascript: 'code' };

/** Throws policy_invalid that names the file at fault. */
export function loadText(directory: string): TextLayer {
  const tokenizer = loadTokenizer(directory);
  requireEmbeddings(directory, tokenizer);
  const template = loadChatTemplate(directory, tokenizer);
  const generation = readGenerationConfig(directory);
  const ends = readEndTokens(directory, tokenizer, generation);
  const shared = { tokenizer, template, endTokens: ends };
  const settings = readOptionalJson(directory, 'ramify.json');
  const path = join(directory, 'ramify.json');
  const named = settings?.protocol ?? syntaxOf(template).name;
  try {
    const syntax = SYNTAXES.find(({ name }) => name === named);
    if (syntax !== undefined) {
      return { tokenizer, protocol: new TurnProtocol({ ...shared, syntax }), generation };
    }
    if (named === 'tags') {
      const tools = readToolTags(settings?.tools);
      return { tokenizer, protocol: new TagProtocol({ ...shared, tools }), generation };
    }
  } catch (error) {
    if (error instanceof AppError && error.code !== 'internal') {
      throw invalidFile(directory, error.message, error);
    }
    throw error;
  }
  throw invalidFile(
    path,
    `protocol ${JSON.stringify(named)} is none of: tags, hermes, llama, plain`,
  );
}

/** An id without a row in the embedding would fail in the middle of a conversation. */
function requireEmbeddings(directory: string, { vocabularySize }: BpeTokenizer): void {
  const rows = readOptionalJson(directory, 'config.json')?.vocab_size;
  if (typeof rows !== 'number' || vocabularySize <= rows) return;
  throw invalidFile(
    join(directory, 'tokenizer.json'),
    `has token ids up to ${vocabularySize - 1}, but the model embeds ${rows} (vocab_size)`,
  );
}

function syntaxOf({ source }: ChatTemplate): CallSyntax {
  if (source.includes('<tool_call>')) return HERMES_CALLS;
  return source.includes('ipython') ? LLAMA_CALLS : NO_CALLS;
}

/**
 * The tags of a policy from `tools` of ramify.json: objects {name, argument}, or plain names of the
 * shipped tools. Throws policy_invalid on a name that cannot be a tag.
 */
export function readToolTags(tools: unknown): ToolTag[] {
  if (!Array.isArray(tools)) throw new AppError('policy_invalid', 'tools is not a list');
  const taken = new Set<string>(FIXED_TAGS);
  return tools.map((item: unknown) => {
    const name = isObject(item) ? item.name : item;
    if (typeof name !== 'string' || !/^[a-z][a-z0-9_]*$/.test(name)) {
      throw new AppError('policy_invalid', `tools holds ${JSON.stringify(item)}: no tool name`);
    }
    if (taken.has(name)) throw new AppError('policy_invalid', `tools: the tag ${name} is taken`);
    taken.add(name);
    const argument = isObject(item) ? item.argument : SHIPPED_ARGUMENTS[name];
    if (typeof argument !== 'string' || argument === '') {
      throw new AppError('policy_invalid', `tools: ${name} does not name its argument`);
    }
    return { name, argument };
  });
}

/** eos_token_id of generation_config.json and config.json, and eos_token of the tokenizer. */
function readEndTokens(
  directory: string,
  tokenizer: BpeTokenizer,
  generation: GenerationConfig,
): number[] {
  const model = readOptionalJson(directory, 'config.json');
  const path = join(directory, 'config.json');
  const stated = model === null ? [] : (endTokens(new JsonFields(model, path)) ?? []);
  const rows = model?.vocab_size;
  const ids = typeof rows === 'number' ? rows : tokenizer.vocabularySize;
  requireIds(generation.eosTokenIds ?? [], ids, join(directory, 'generation_config.json'));
  requireIds(stated, ids, path);
  const ends = new Set([...(generation.eosTokenIds ?? []), ...stated]);
  const config = readOptionalJson(directory, 'tokenizer_config.json');
  const text = tokenText(config?.eos_token);
  const id = text === null ? null : tokenizer.tokenId(text);
  if (id !== null) ends.add(id);
  if (ends.size === 0) {
    throw invalidFile(
      directory,
      'no end-of-turn token: neither eos_token_id nor eos_token is given',
    );
  }
  if (endTexts(tokenizer, [...ends]).length === 0) {
    throw invalidFile(
      directory,
      `no end-of-turn token with a text: the tokenizer has none for ${[...ends].join(', ')}`,
    );
  }
  return [...ends];
}

/** Ids above the tokenizer's are the model's own where its embedding is padded. */
function requireIds(tokens: readonly number[], ids: number, path: string): void {
  const strange = tokens.find((token) => token >= ids);
  if (strange === undefined) return;
  throw invalidFile(path, `eos_token_id ${strange} is none of the model's ${ids} token ids`);
}
