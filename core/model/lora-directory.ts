/**
 * A policy directory of kind `lora`: adapter_config.json and adapter_model.safetensors as PEFT
 * writes them, over a base that is a policy directory of its own. `base_model_name_or_path` is an
 * absolute path or one from the adapter's directory; names on a hub are not looked up.
 *
 * The base's weights are read when they are asked for, not before: most adapters are loaded beside
 * others over the same base, whose sessions hold them already.
 */
import { existsSync, readdirSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { AppError } from '../errors.ts';
import { parseModelConfig } from './config.ts';
import { formatLoraConfig, parseLoraConfig } from './lora-config.ts';
import { readJsonFile } from '../json-file.ts';
import { loraModules, loraShapes, type LoraAdapter, type LoraModule } from './lora.ts';
import { CONFIG_FILE, openPolicyModel, type ServedModel } from './policy-directory.ts';
import { openSafetensors, writeSafetensors } from './safetensors.ts';
import { heldWeights } from './stored-weights.ts';
import type { ModelConfig, ModelWeights, StoredWeights, Weights } from './types.ts';

export const ADAPTER_CONFIG_FILE = 'adapter_config.json';
export const ADAPTER_WEIGHTS_FILE = 'adapter_model.safetensors';

/** PEFT wraps the model twice and names its tensors by the whole path. */
const PEFT_PREFIX = 'base_model.model.';

/** An adapter over a base whose weights are read when they are needed. */
export interface AdapterPolicy {
  config: ModelConfig;
  adapter: LoraAdapter;
  /** Policies with equal keys have the same base weights. */
  baseKey: string;
  baseWeights(): ModelWeights;
}

export function isAdapterDirectory(directory: string): boolean {
  return existsSync(join(directory, ADAPTER_CONFIG_FILE));
}

/** The model of a policy directory of either kind. Throws policy_invalid. */
export function loadPolicy(directory: string): ServedModel | AdapterPolicy {
  return isAdapterDirectory(directory) ? loadAdapter(directory) : openPolicyModel(directory);
}

/**
 * Reads and checks an adapter and its base's config, not the base's weights. Throws policy_invalid
 * naming the file at fault.
 */
export function loadAdapter(directory: string): AdapterPolicy & { baseDirectory: string } {
  const baseDirectory = baseDirectoryOf(directory);
  const path = join(baseDirectory, CONFIG_FILE);
  const config = parseModelConfig(readJsonFile(path), path);
  return {
    config,
    adapter: readAdapter(directory, config),
    baseDirectory,
    baseKey: keyOf(baseDirectory),
    baseWeights: () => openPolicyModel(baseDirectory).weights,
  };
}

/** The base of an adapter, from its config alone. Throws policy_invalid. */
export function baseDirectoryOf(directory: string): string {
  return findBase(directory, readConfig(directory).base);
}

/** The adapter files alone, checked against a model, wherever the base may be. */
export function readAdapter(directory: string, model: ModelConfig): LoraAdapter {
  const { config } = readConfig(directory);
  const modules = loraModules(model, config, join(directory, ADAPTER_CONFIG_FILE));
  const path = join(directory, ADAPTER_WEIGHTS_FILE);
  const weights = adapterWeights(modules, openSafetensors(path), path);
  return { config, modules, weights };
}

/**
 * Writes an adapter (float32) into an existing directory. `finalDirectory` is where the directory
 * will lie in the end: a base beside it is written as a relative path, so that a folder of policies
 * can move; any other base as an absolute one.
 */
export function saveAdapter(
  directory: string,
  adapter: LoraAdapter,
  place: { baseDirectory: string; finalDirectory?: string },
): void {
  const home = resolve(place.finalDirectory ?? directory);
  const base = resolve(place.baseDirectory);
  const beside = dirname(home) === dirname(base);
  const text = JSON.stringify(
    formatLoraConfig(adapter.config, beside ? relative(home, base) : base),
    null,
    2,
  );
  writeFileSync(join(directory, ADAPTER_CONFIG_FILE), `${text}\n`);
  const named: Weights = new Map(
    [...adapter.weights].map(([name, tensor]) => [`${PEFT_PREFIX}${name}`, tensor]),
  );
  writeSafetensors(join(directory, ADAPTER_WEIGHTS_FILE), named);
}

/**
 * Where the text files (tokenizer, template) of a policy are: in its own directory, or for an
 * adapter that came without a tokenizer in its base's. Throws policy_invalid.
 */
export function textDirectory(directory: string): string {
  if (!isAdapterDirectory(directory) || existsSync(join(directory, 'tokenizer.json'))) {
    return directory;
  }
  return baseDirectoryOf(directory);
}

function readConfig(directory: string): ReturnType<typeof parseLoraConfig> {
  const path = join(directory, ADAPTER_CONFIG_FILE);
  return parseLoraConfig(readJsonFile(path), path);
}

/** Tensors by our names; exactly those that the config says, in its shapes. */
function adapterWeights(
  modules: readonly LoraModule[],
  found: StoredWeights,
  where: string,
): Weights {
  const weights: StoredWeights = new Map();
  for (const [name, shape] of loraShapes(modules)) {
    const tensor = found.get(`${PEFT_PREFIX}${name}`);
    if (tensor === undefined) throw invalid(where, `no tensor ${PEFT_PREFIX}${name}`);
    if (tensor.shape.join() !== shape.join()) {
      const given = `[${tensor.shape.join()}], ${ADAPTER_CONFIG_FILE} says [${shape.join()}]`;
      throw invalid(where, `${PEFT_PREFIX}${name} has shape ${given}`);
    }
    weights.set(name, tensor);
  }
  for (const name of found.keys()) {
    const known = name.startsWith(PEFT_PREFIX) && weights.has(name.slice(PEFT_PREFIX.length));
    if (!known) throw invalid(where, `unknown tensor ${name}`);
  }
  return heldWeights(weights);
}

function findBase(directory: string, written: string): string {
  const where = join(directory, ADAPTER_CONFIG_FILE);
  const path = resolve(directory, written);
  if (!existsSync(join(path, CONFIG_FILE))) {
    throw invalid(
      where,
      `base_model_name_or_path ${JSON.stringify(written)}: no model in ${path}; ` +
        'give the directory of the base, absolute or from the adapter',
    );
  }
  if (isAdapterDirectory(path)) {
    throw invalid(where, `the base ${path} is an adapter itself, which is not supported`);
  }
  return realpathSync(path);
}

/** Changes when a file of the model is replaced or written. */
function keyOf(baseDirectory: string): string {
  const files = readdirSync(baseDirectory)
    .filter((name) => name === CONFIG_FILE || /\.safetensors(\.index\.json)?$/.test(name))
    .sort();
  const stamps = files.map((name) => {
    const { size, mtimeMs } = statSync(join(baseDirectory, name));
    return `${name}:${size}:${mtimeMs}`;
  });
  return [baseDirectory, ...stamps].join('\n');
}

function invalid(where: string, what: string): AppError {
  return new AppError('policy_invalid', `${where}: ${what}`);
}
