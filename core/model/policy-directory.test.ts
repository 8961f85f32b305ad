/** A policy's model files on disk: written and read back; each fault named with its file. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import { initialWeights } from './parameters.ts';
import { loadPolicyModel, savePolicyModel } from './policy-directory.ts';
import { formatSafetensors } from './safetensors.ts';
import type { ModelConfig, Weights } from './types.ts';

const CONFIG: ModelConfig = {
  modelType: 'qwen2',
  layers: 2,
  hidden: 8,
  heads: 2,
  kvHeads: 1,
  headDim: 4,
  intermediate: 12,
  vocabulary: 11,
  contextTokens: 32,
  ropeTheta: 10000,
  rmsNormEpsilon: 1e-6,
  qkvBias: true,
  tiedEmbeddings: true,
};
const weights = initialWeights(CONFIG, new Prng(2));

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ramify-policy-'));
  savePolicyModel(directory, { config: CONFIG, weights });
});
afterEach(() => rmSync(directory, { recursive: true }));

const path = (name: string) => join(directory, name);
const load = () => loadPolicyModel(directory);
function writeWeights(change: (weights: Weights) => void): void {
  const changed: Weights = new Map(weights);
  change(changed);
  writeFileSync(path('model.safetensors'), formatSafetensors(changed));
}
function expectFault(file: string, fault: string | RegExp): void {
  expect(load).toThrowError(expect.objectContaining({ code: 'policy_invalid' }));
  expect(load).toThrowError(path(file));
  expect(load).toThrowError(fault);
}

describe('a policy directory', () => {
  it('reads back what was written', () => {
    expect(load()).toEqual({ config: CONFIG, weights });
  });

  it('drops the copy of a tied head', () => {
    const { shape, data } = weights.get('model.embed_tokens.weight')!;
    writeWeights((changed) => changed.set('lm_head.weight', { shape, data }));
    expect(load().weights).toEqual(weights);
  });

  it.each(['config.json', 'model.safetensors'])('names a missing %s', (file) => {
    rmSync(path(file));
    expectFault(file, /is missing|no such file/);
  });

  it.each([
    ['config.json', 'EISDIR'],
    ['model.safetensors', 'is not a file'],
  ])('names a %s that is a folder', (file, fault) => {
    rmSync(path(file));
    mkdirSync(path(file));
    expectFault(file, fault);
  });

  it('names a config that is no JSON, or of another family', () => {
    const text = readFileSync(path('config.json'), 'utf8');
    writeFileSync(path('config.json'), text.slice(0, -5));
    expectFault('config.json', 'not valid JSON');
    writeFileSync(path('config.json'), text.replace('"qwen2"', '"mamba"'));
    expectFault('config.json', 'model_type "mamba" is not supported; supported: llama, qwen2');
  });

  it('names the tensor that is missing, unknown, or not as the config says', () => {
    writeWeights((changed) => changed.delete('model.layers.1.self_attn.k_proj.bias'));
    expectFault('model.safetensors', 'no tensor model.layers.1.self_attn.k_proj.bias');
    writeWeights((changed) => changed.set('extra', weights.get('model.norm.weight')!));
    expectFault('model.safetensors', 'unknown tensor extra');
    writeWeights((changed) => {
      changed.set('model.norm.weight', { shape: [2, 4], data: new Float32Array(8) });
    });
    expectFault('model.safetensors', 'model.norm.weight has shape [2,4], config.json says [8]');
  });

  it('names a file that was cut off while it was copied', () => {
    const bytes = readFileSync(path('model.safetensors'));
    writeFileSync(path('model.safetensors'), bytes.subarray(0, bytes.length - 100));
    expectFault('model.safetensors', /do not hold/);
  });
});
