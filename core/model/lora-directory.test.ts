/**
 * PEFT directories on disk: written and read back, every way of naming targets, and each fault
 * named with its file. The files of the real peft are in test/parity.
 */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import { loadAdapter, loadPolicy, saveAdapter, textDirectory } from './lora-directory.ts';
import { initialAdapter, type LoraConfig } from './lora.ts';
import { initialWeights } from './parameters.ts';
import { savePolicyModel, type ServedModel } from './policy-directory.ts';
import { heldWeights } from './stored-weights.ts';
import { formatSafetensors, parseSafetensors } from './safetensors.ts';
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
const LORA: LoraConfig = {
  rank: 2,
  alpha: 6,
  rsLora: false,
  targets: ['q_proj', 'v_proj'],
  excluded: [],
  layers: null,
  rankPattern: {},
  alphaPattern: {},
};
const weights = initialWeights(CONFIG, new Prng(2));
const Q0 = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';

let folder: string;
let base: string;
let directory: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ramify-lora-'));
  base = join(folder, 'base');
  directory = join(folder, 'adapter');
  mkdirSync(base);
  mkdirSync(directory);
  savePolicyModel(base, { config: CONFIG, weights });
  write(LORA);
});
afterEach(() => rmSync(folder, { recursive: true }));

const path = (name: string) => join(directory, name);
const adapterOf = (config: LoraConfig) => initialAdapter(CONFIG, config, new Prng(4));
const write = (config: LoraConfig) =>
  saveAdapter(directory, adapterOf(config), { baseDirectory: base });
const json = () =>
  JSON.parse(readFileSync(path('adapter_config.json'), 'utf8')) as Record<string, unknown>;
const change = (fields: Record<string, unknown>) =>
  writeFileSync(path('adapter_config.json'), JSON.stringify({ ...json(), ...fields }));
function changeTensors(edit: (tensors: Weights) => void): void {
  const tensors = parseSafetensors(readFileSync(path('adapter_model.safetensors')), 'file');
  edit(tensors);
  writeFileSync(path('adapter_model.safetensors'), formatSafetensors(tensors));
}
const load = () => loadAdapter(directory);
function expectFault(file: string, fault: string): void {
  expect(load).toThrowError(expect.objectContaining({ code: 'policy_invalid' }));
  expect(load).toThrowError(path(file));
  expect(load).toThrowError(fault);
}

describe('an adapter directory', () => {
  it('reads back what was written, and the base when it is asked for', () => {
    const policy = load();
    expect(policy.config).toEqual(CONFIG);
    expect(policy.adapter).toEqual(adapterOf(LORA));
    expect(heldWeights(policy.baseWeights())).toEqual(weights);
    expect(loadPolicy(directory)).toHaveProperty('adapter');
    const whole = loadPolicy(base) as ServedModel;
    expect({ ...whole, weights: heldWeights(whole.weights) }).toEqual({ config: CONFIG, weights });
  });

  it("has PEFT's names and shapes", () => {
    const tensors = parseSafetensors(readFileSync(path('adapter_model.safetensors')), 'file');
    expect([...tensors.keys()].slice(0, 2)).toEqual([Q0, Q0.replace('lora_A', 'lora_B')]);
    expect(tensors.get(Q0)?.shape).toEqual([2, 8]);
    expect(tensors.get(Q0.replace('lora_A', 'lora_B'))?.shape).toEqual([8, 2]);
    expect(json()).toMatchObject({ peft_type: 'LORA', r: 2, lora_alpha: 6, bias: 'none' });
  });

  it('names a base beside it from itself, so that the folder can move', () => {
    expect(json().base_model_name_or_path).toBe('../base');
    const moved = mkdtempSync(join(tmpdir(), 'ramify-moved-'));
    cpSync(folder, moved, { recursive: true });
    rmSync(base, { recursive: true });
    expect(heldWeights(loadAdapter(join(moved, 'adapter')).baseWeights())).toEqual(weights);
    rmSync(moved, { recursive: true });
  });

  it('names a base elsewhere by its whole path', () => {
    mkdirSync(join(folder, 'deeper'));
    const place = { baseDirectory: base, finalDirectory: join(folder, 'deeper', 'adapter') };
    saveAdapter(directory, adapterOf(LORA), place);
    expect(json().base_model_name_or_path).toBe(base);
    expect(load().adapter).toEqual(adapterOf(LORA));
  });

  it('keeps one key for a base until its files change', () => {
    const { baseKey } = load();
    expect(load().baseKey).toBe(baseKey);
    utimesSync(join(base, 'model.safetensors'), 1, 1);
    expect(load().baseKey).not.toBe(baseKey);
  });

  it("takes the base's text files unless it brings a tokenizer", () => {
    expect(textDirectory(base)).toBe(base);
    expect(textDirectory(directory)).toBe(load().baseDirectory);
    writeFileSync(path('tokenizer.json'), '{}');
    expect(textDirectory(directory)).toBe(directory);
  });
});

describe('scales and targets', () => {
  const scales = (config: Partial<LoraConfig>) => {
    write({ ...LORA, ...config });
    return Object.fromEntries(
      load().adapter.modules.map(({ name, rank, scale }) => [
        name.replace('model.layers.', '').replace(/self_attn\.|mlp\./, ''),
        [rank, Number(scale.toFixed(6))],
      ]),
    );
  };

  it('are alpha / rank, for rsLoRA alpha / sqrt(rank), and by name', () => {
    expect(scales({})).toEqual({
      '0.q_proj': [2, 3],
      '0.v_proj': [2, 3],
      '1.q_proj': [2, 3],
      '1.v_proj': [2, 3],
    });
    expect(scales({ rsLora: true })['0.q_proj']).toEqual([2, 4.242641]);
    const named = scales({
      rankPattern: { 'layers.1.self_attn.q_proj': 4, v_proj: 1 },
      alphaPattern: { q_proj: 2 },
    });
    expect(named).toEqual({
      '0.q_proj': [2, 1],
      '0.v_proj': [1, 6],
      '1.q_proj': [4, 0.5],
      '1.v_proj': [1, 6],
    });
  });

  it('are names, one expression, or all', () => {
    const named = (config: Partial<LoraConfig>) => Object.keys(scales(config)).join(' ');
    expect(Object.keys(scales({ targets: 'all-linear' })).length).toBe(14);
    expect(named({ targets: ['model.layers.1.mlp.up_proj'] })).toBe('1.up_proj');
    // Names end at a dot: o_proj is not no_proj.
    expect(named({ targets: ['proj', 'o_proj'] })).toBe('0.o_proj 1.o_proj');
    expect(named({ targets: '.*layers\\.0\\..*(q|k)_proj' })).toBe('0.q_proj 0.k_proj');
    expect(named({ targets: 'all-linear', excluded: '.*mlp.*|.*[qkv]_proj' })).toBe(
      '0.o_proj 1.o_proj',
    );
    expect(named({ layers: [1] })).toBe('1.q_proj 1.v_proj');
  });
});

describe('faults', () => {
  it.each([
    [{ peft_type: 'IA3' }, 'peft_type "IA3" is not supported; LORA is'],
    [{ use_dora: true }, 'use_dora true is not supported'],
    [{ fan_in_fan_out: true }, 'fan_in_fan_out true is not supported'],
    [{ bias: 'all' }, 'bias "all" is not supported; "none" is'],
    [{ task_type: 'SEQ_CLS' }, 'task_type "SEQ_CLS" is not supported; "CAUSAL_LM" is'],
    [{ modules_to_save: ['lm_head'] }, 'modules_to_save ["lm_head"] is not supported'],
    [{ init_lora_weights: 'pissa' }, 'init_lora_weights "pissa" is not supported'],
    [{ layer_replication: [[0, 2]] }, 'layer_replication [[0,2]] is not supported'],
    [{ option_of_tomorrow: 3 }, 'option_of_tomorrow 3 is not supported'],
    [{ r: 0 }, 'r must be a positive integer, not 0'],
    [{ r: 1e9 }, 'r 1000000000 is larger than 1024'],
    [{ rank_pattern: { q_proj: 1.5 } }, 'rank_pattern.q_proj must be a positive integer, not 1.5'],
    [{ lora_alpha: '8' }, 'lora_alpha must be a positive number, not "8"'],
    [{ use_rslora: 'yes' }, 'use_rslora must be true or false'],
    [{ target_modules: null }, 'target_modules is missing or empty'],
    [{ target_modules: [7] }, 'target_modules must be a list of names or a pattern, not [7]'],
    [{ target_modules: ['fc1'] }, 'target_modules ["fc1"] name no projection of the model'],
    [{ target_modules: '(.*)*_proj' }, 'repeats a group'],
    [{ target_modules: '.*.*.*.*.*_proj' }, 'more than 4 repeats'],
    [{ target_modules: '(?i)q_proj' }, 'is not a regular expression'],
    [{ target_modules: 'x'.repeat(2_000) }, 'is longer than 1000 characters'],
    [{ layers_to_transform: [-1] }, 'layers_to_transform must hold layer numbers, not [-1]'],
    [
      { layers_to_transform: 0, target_modules: 'all-linear' },
      'layers_to_transform needs target_modules to be a list of names',
    ],
    [{ base_model_name_or_path: null }, 'base_model_name_or_path must name the base, not null'],
    [{ base_model_name_or_path: 'Qwen/Qwen2.5-0.5B' }, 'no model in'],
    [{ base_model_name_or_path: '.' }, 'no model in'],
  ])('%j', (fields, fault) => {
    change(fields);
    expectFault('adapter_config.json', fault);
  });

  it('names a file that is missing, or no JSON', () => {
    rmSync(path('adapter_model.safetensors'));
    expectFault('adapter_model.safetensors', 'no such file');
    writeFileSync(path('adapter_config.json'), '{');
    expectFault('adapter_config.json', 'not valid JSON');
  });

  it('names the tensor that is missing, unknown, or not as the config says', () => {
    changeTensors((tensors) => tensors.set('lm_head.lora_A.weight', tensors.get(Q0)!));
    expectFault('adapter_model.safetensors', 'unknown tensor lm_head.lora_A.weight');
    changeTensors((tensors) => tensors.delete('lm_head.lora_A.weight'));
    change({ r: 3 });
    expectFault(
      'adapter_model.safetensors',
      `${Q0} has shape [2,8], adapter_config.json says [3,8]`,
    );
    change({ r: 2 });
    changeTensors((tensors) => tensors.delete(Q0));
    expectFault('adapter_model.safetensors', `no tensor ${Q0}`);
  });

  it('names a tensor of a module that the config does not target', () => {
    change({ target_modules: ['q_proj'] });
    expectFault('adapter_model.safetensors', 'unknown tensor base_model.model.model.layers.0');
  });

  it('names a base that is an adapter itself', () => {
    cpSync(directory, base, { recursive: true });
    expectFault('adapter_config.json', 'is an adapter itself');
  });
});
