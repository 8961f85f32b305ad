/**
 * adapter_config.json of PEFT, read and written. Every option that would change numbers and is not
 * offered is refused by name; options that this version does not know may be there as long as they
 * are off (null, false, empty), which is how PEFT writes those of its later versions.
 */
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { LoraConfig } from './lora.ts';
import type { ModuleSet } from './lora-targets.ts';

type Json = Record<string, unknown>;

/** Read below. */
const READ = [
  'peft_type',
  'base_model_name_or_path',
  'r',
  'lora_alpha',
  'use_rslora',
  'target_modules',
  'exclude_modules',
  'layers_to_transform',
  'rank_pattern',
  'alpha_pattern',
];
/** Of no effect on what the stored tensors mean; dropout works while PEFT trains, and only then. */
const IGNORED = [
  'auto_mapping',
  'inference_mode',
  'lora_dropout',
  'megatron_core',
  'peft_version',
  'qalora_group_size',
  'revision',
  'runtime_config',
];
/** Values that mean what we do. */
const EXPECTED: Readonly<Record<string, readonly unknown[]>> = {
  task_type: ['CAUSAL_LM'],
  bias: ['none'],
  // The others start from changed base weights.
  init_lora_weights: [true, 'gaussian'],
};

/**
 * The config and where the base is, as written. `where` names the file in errors. Throws
 * policy_invalid for what is missing, wrong or not supported.
 */
export function parseLoraConfig(
  json: unknown,
  where: string,
): { config: LoraConfig; base: string } {
  if (!isObject(json)) throw invalid(where, 'is not a JSON object');
  if (json.peft_type !== 'LORA') {
    throw invalid(where, `peft_type ${show(json.peft_type)} is not supported; LORA is`);
  }
  refuseUnsupported(json, where);
  const base = json.base_model_name_or_path;
  if (typeof base !== 'string' || base === '') {
    throw invalid(where, `base_model_name_or_path must name the base, not ${show(base)}`);
  }
  const targets = moduleSet(json, 'target_modules', where);
  if (targets.length === 0) throw invalid(where, 'target_modules is missing or empty');
  const layers = layerList(json.layers_to_transform, where);
  if (layers !== null && typeof targets === 'string') {
    throw invalid(where, 'layers_to_transform needs target_modules to be a list of names');
  }
  const config = {
    rank: rank(json.r, 'r', where),
    alpha: alpha(json.lora_alpha, 'lora_alpha', where),
    rsLora: flag(json, 'use_rslora', where),
    targets,
    excluded: moduleSet(json, 'exclude_modules', where),
    layers,
    rankPattern: table(json, 'rank_pattern', rank, where),
    alphaPattern: table(json, 'alpha_pattern', alpha, where),
  };
  return { config, base };
}

/** The adapter_config.json that `parseLoraConfig` and PEFT read. */
export function formatLoraConfig(config: LoraConfig, base: string): Json {
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base,
    r: config.rank,
    lora_alpha: config.alpha,
    lora_dropout: 0,
    use_rslora: config.rsLora,
    use_dora: false,
    target_modules: config.targets,
    exclude_modules: config.excluded.length === 0 ? null : config.excluded,
    layers_to_transform: config.layers,
    layers_pattern: null,
    rank_pattern: config.rankPattern,
    alpha_pattern: config.alphaPattern,
    bias: 'none',
    fan_in_fan_out: false,
    modules_to_save: null,
    init_lora_weights: true,
    inference_mode: true,
  };
}

function refuseUnsupported(json: Json, where: string): void {
  for (const [key, value] of Object.entries(json)) {
    if (READ.includes(key) || IGNORED.includes(key) || isOff(value)) continue;
    const expected = Object.hasOwn(EXPECTED, key) ? EXPECTED[key] : undefined;
    if (expected?.includes(value)) continue;
    const instead = expected === undefined ? '' : `; ${expected.map(show).join(' or ')} is`;
    throw invalid(where, `${key} ${show(value)} is not supported${instead}`);
  }
}

function isOff(value: unknown): boolean {
  if (value === null || value === undefined || value === false) return true;
  if (Array.isArray(value)) return value.length === 0;
  return isObject(value) && Object.keys(value).length === 0;
}

function moduleSet(json: Json, key: string, where: string): ModuleSet {
  const value = json[key] ?? [];
  if (typeof value === 'string') return value;
  if (!Array.isArray(value) || !value.every((name) => typeof name === 'string' && name !== '')) {
    throw invalid(where, `${key} must be a list of names or a pattern, not ${show(value)}`);
  }
  return value as string[];
}

function layerList(value: unknown, where: string): number[] | null {
  if (value === null || value === undefined) return null;
  const list: unknown[] = Array.isArray(value) ? value : [value];
  if (!list.every((item) => Number.isSafeInteger(item) && Number(item) >= 0)) {
    throw invalid(where, `layers_to_transform must hold layer numbers, not ${show(value)}`);
  }
  return list as number[];
}

function table(
  json: Json,
  key: string,
  read: (value: unknown, key: string, where: string) => number,
  where: string,
): Record<string, number> {
  const value = json[key] ?? {};
  if (!isObject(value)) throw invalid(where, `${key} must be an object, not ${show(value)}`);
  const entries = Object.entries(value);
  return Object.fromEntries(
    entries.map(([name, item]) => [name, read(item, `${key}.${name}`, where)]),
  );
}

function rank(value: unknown, key: string, where: string): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1) {
    throw invalid(where, `${key} must be a positive integer, not ${show(value)}`);
  }
  if (value > LIMITS.loraRankMax) {
    throw invalid(where, `${key} ${value} is larger than ${LIMITS.loraRankMax}`);
  }
  return value;
}

function alpha(value: unknown, key: string, where: string): number {
  if (typeof value !== 'number' || !(value > 0) || !Number.isFinite(value)) {
    throw invalid(where, `${key} must be a positive number, not ${show(value)}`);
  }
  return value;
}

function flag(json: Json, key: string, where: string): boolean {
  const value = json[key] ?? false;
  if (typeof value !== 'boolean') throw invalid(where, `${key} must be true or false`);
  return value;
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 100);
}

function invalid(where: string, what: string): AppError {
  return new AppError('policy_invalid', `${where}: ${what}`);
}
