/**
 * A policy's model files: config.json and model.safetensors of a Hugging Face style directory. Text
 * files (tokenizer, template) belong to core/text.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AppError } from '../errors.ts';
import { formatModelConfig, parseModelConfig } from './config.ts';
import { checkWeights } from './parameters.ts';
import { formatSafetensors, parseSafetensors } from './safetensors.ts';
import type { ModelConfig, Weights } from './types.ts';

export const CONFIG_FILE = 'config.json';
export const WEIGHTS_FILE = 'model.safetensors';

export interface PolicyModel {
  config: ModelConfig;
  weights: Weights;
}

/** Reads and checks the model of a directory. Throws policy_invalid naming the file at fault. */
export function loadPolicyModel(directory: string): PolicyModel {
  const configPath = join(directory, CONFIG_FILE);
  let json: unknown;
  try {
    json = JSON.parse(readFile(configPath).toString('utf8'));
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError('policy_invalid', `${configPath}: not valid JSON`, { cause: error });
  }
  const config = parseModelConfig(json, configPath);
  const weightsPath = join(directory, WEIGHTS_FILE);
  const weights = parseSafetensors(readFile(weightsPath), weightsPath);
  // Checkpoints with tied embeddings may still store the head; it is a copy.
  if (config.tiedEmbeddings) weights.delete('lm_head.weight');
  checkWeights(config, weights, weightsPath);
  return { config, weights };
}

/** Writes config.json and model.safetensors (float32) into an existing directory. */
export function savePolicyModel(directory: string, { config, weights }: PolicyModel): void {
  const text = `${JSON.stringify(formatModelConfig(config), null, 2)}\n`;
  writeFileSync(join(directory, CONFIG_FILE), text);
  writeFileSync(join(directory, WEIGHTS_FILE), formatSafetensors(weights));
}

function readFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new AppError('policy_invalid', `${path}: ${reason}`, { cause: error });
  }
}
