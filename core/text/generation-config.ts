/**
 * generation_config.json of a policy directory: the tokens that end a turn, and how its makers mean
 * it to be sampled where a request says nothing. As in vLLM, a default that the file does not state
 * is neutral, not the library's own, and `do_sample` changes nothing. Fields that are not listed
 * here are not read.
 */
import { join } from 'node:path';
import { JsonFields } from '../json-fields.ts';
import { readOptionalJson } from './policy-files.ts';

/** What the file states; a directory without one states nothing. */
export interface GenerationConfig {
  eosTokenIds?: number[];
  bosTokenId?: number;
  padTokenId?: number;
  doSample?: boolean;
  /** 0 means greedy. */
  temperature?: number;
  topP?: number;
  /** 0 = off. */
  topK?: number;
  minP?: number;
  repetitionPenalty?: number;
  /** The longest answer. */
  maxNewTokens?: number;
}

const FILE = 'generation_config.json';
const TOKEN = { integer: true, least: 0 };

/** @throws AppError policy_invalid that names the field and its value. */
export function readGenerationConfig(directory: string): GenerationConfig {
  const json = readOptionalJson(directory, FILE);
  return json === null ? {} : parseGenerationConfig(json, join(directory, FILE));
}

/** `where` names the file in errors. @throws AppError policy_invalid. */
export function parseGenerationConfig(json: unknown, where: string): GenerationConfig {
  const fields = new JsonFields(json, where);
  const found = {
    eosTokenIds: endTokens(fields),
    bosTokenId: fields.optionalNumber('bos_token_id', TOKEN),
    padTokenId: fields.optionalNumber('pad_token_id', TOKEN),
    doSample: fields.value('do_sample') === undefined ? undefined : fields.flag('do_sample'),
    temperature: fields.optionalNumber('temperature', { least: 0 }),
    topP: fields.optionalNumber('top_p', { above: 0, largest: 1 }),
    topK: fields.optionalNumber('top_k', { integer: true, least: 0 }),
    minP: fields.optionalNumber('min_p', { least: 0, largest: 1 }),
    repetitionPenalty: fields.optionalNumber('repetition_penalty', { least: 0.01 }),
    maxNewTokens: fields.optionalNumber('max_new_tokens', { integer: true, least: 1 }),
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));
}

/** `eos_token_id` of a config file: one id or several; undefined where none is given. */
export function endTokens(fields: JsonFields): number[] | undefined {
  const value = fields.value('eos_token_id');
  if (value === undefined) return undefined;
  return (Array.isArray(value) ? value : [value]).map((id: unknown) => {
    if (typeof id === 'number' && Number.isInteger(id) && id >= 0) return id;
    throw fields.invalid(`eos_token_id holds ${JSON.stringify(id)}, which is no token id`);
  });
}
