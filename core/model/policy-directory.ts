/**
 * A policy's model files: config.json and the safetensors of a Hugging Face style directory. Text
 * files (tokenizer, template) belong to core/text.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint, WEIGHTS_FILE } from './checkpoint-files.ts';
import { formatModelConfig, parseModelConfig } from './config.ts';
import { readJsonFile } from '../json-file.ts';
import { checkWeights } from './parameters.ts';
import { writeSafetensors } from './safetensors.ts';
import { heldWeights } from './stored-weights.ts';
import type { ModelConfig, ModelWeights, StoredWeights, Weights } from './types.ts';

export const CONFIG_FILE = 'config.json';

/** Weights in memory. */
export interface PolicyModel {
  config: ModelConfig;
  weights: Weights;
}

/** A model to serve, wherever its weights are. */
export interface ServedModel {
  config: ModelConfig;
  weights: ModelWeights;
}

/**
 * Reads and checks a directory's config and where its tensors are, and no tensor. Throws
 * policy_invalid naming the file at fault.
 */
export function openPolicyModel(directory: string): {
  config: ModelConfig;
  weights: StoredWeights;
} {
  const configPath = join(directory, CONFIG_FILE);
  const config = parseModelConfig(readJsonFile(configPath), configPath);
  const weights = openCheckpoint(directory);
  // Checkpoints with tied embeddings may still store the head; it is a copy.
  if (config.tiedEmbeddings) weights.delete('lm_head.weight');
  checkWeights(config, weights, join(directory, WEIGHTS_FILE));
  return { config, weights };
}

/** Reads a directory's model into memory as float32. Throws policy_invalid as above. */
export function loadPolicyModel(directory: string): PolicyModel {
  const { config, weights } = openPolicyModel(directory);
  return { config, weights: heldWeights(weights) };
}

/** Writes config.json and model.safetensors (float32) into an existing directory. */
export function savePolicyModel(directory: string, { config, weights }: PolicyModel): void {
  const text = `${JSON.stringify(formatModelConfig(config), null, 2)}\n`;
  writeFileSync(join(directory, CONFIG_FILE), text);
  writeSafetensors(join(directory, WEIGHTS_FILE), weights);
}
