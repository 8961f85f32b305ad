/**
 * LoRA adapters (Hu et al., arXiv 2106.09685): the weight W of a projection is used as
 * W + scale B A, where A (rank, in) and B (out, rank) are small and W stays as it is. The scale is
 * alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA (arXiv 2312.03732).
 *
 * Names and shapes are those of PEFT. Knows nothing of files (lora-directory.ts) nor of graphs
 * (lora-graph.ts).
 */
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import type { Prng } from '../prng.ts';
import { inModuleSet, patternValue, type ModuleSet } from './lora-targets.ts';
import { parameterShapes } from './parameters.ts';
import type { ModelConfig, Weights } from './types.ts';

/** The part of PEFT's LoraConfig that changes numbers. */
export interface LoraConfig {
  rank: number;
  alpha: number;
  rsLora: boolean;
  targets: ModuleSet;
  /** Modules left out although `targets` names them. */
  excluded: ModuleSet;
  /** Layers that are adapted; null: all. */
  layers: readonly number[] | null;
  /** Rank and alpha of modules whose name's end matches a key. */
  rankPattern: Readonly<Record<string, number>>;
  alphaPattern: Readonly<Record<string, number>>;
}

/** One adapted projection: x -> W x + scale B A x. */
export interface LoraModule {
  /** `model.layers.N.self_attn.q_proj`. */
  name: string;
  inputs: number;
  outputs: number;
  rank: number;
  scale: number;
}

export interface LoraAdapter {
  config: LoraConfig;
  /** In the order of the forward pass. */
  modules: readonly LoraModule[];
  /** A and B of every module, by `loraA` and `loraB`. */
  weights: Weights;
}

/** Names of A (rank, in) and B (out, rank) of a module. */
export const loraA = (module: string) => `${module}.lora_A.weight`;
export const loraB = (module: string) => `${module}.lora_B.weight`;

/** Every projection that an adapter may change, in the order of the forward pass. */
export function projections(config: ModelConfig): Omit<LoraModule, 'rank' | 'scale'>[] {
  const found: Omit<LoraModule, 'rank' | 'scale'>[] = [];
  for (const [parameter, shape] of parameterShapes(config)) {
    const name = /^(model\.layers\..*_proj)\.weight$/.exec(parameter)?.[1];
    if (name === undefined) continue;
    const [outputs, inputs] = shape as [number, number];
    found.push({ name, inputs, outputs });
  }
  return found;
}

/** The modules that an adapter changes. Throws policy_invalid when it changes none. */
export function loraModules(model: ModelConfig, config: LoraConfig, where: string): LoraModule[] {
  const { targets, excluded, layers, rsLora } = config;
  const modules = projections(model)
    .filter(({ name }) => inModuleSet(targets, name, where))
    .filter(({ name }) => !inModuleSet(excluded, name, where))
    .filter(({ name }) => layers === null || layers.includes(layerOf(name)))
    .map((projection) => {
      const rank = patternValue(config.rankPattern, projection.name, where) ?? config.rank;
      const alpha = patternValue(config.alphaPattern, projection.name, where) ?? config.alpha;
      return { ...projection, rank, scale: alpha / (rsLora ? Math.sqrt(rank) : rank) };
    });
  if (modules.length === 0) {
    const shown = JSON.stringify(targets).slice(0, 200);
    throw new AppError(
      'policy_invalid',
      `${where}: target_modules ${shown} name no projection of the model`,
    );
  }
  return modules;
}

const layerOf = (module: string) => Number(module.split('.')[2]);

/** Name and shape of every tensor of an adapter, A before B. */
export function loraShapes(modules: readonly LoraModule[]): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>();
  for (const { name, inputs, outputs, rank } of modules) {
    shapes.set(loraA(name), [rank, inputs]);
    shapes.set(loraB(name), [outputs, rank]);
  }
  return shapes;
}

/**
 * A fresh adapter that changes nothing yet: A uniform in +-1/sqrt(in), which is PEFT's Kaiming
 * initialisation with slope sqrt(5), and B zero.
 */
export function initialAdapter(model: ModelConfig, config: LoraConfig, prng: Prng): LoraAdapter {
  const modules = loraModules(model, config, 'adapter');
  const weights: Weights = new Map();
  for (const { name, inputs, outputs, rank } of modules) {
    const bound = 1 / Math.sqrt(inputs);
    const a = Float32Array.from({ length: rank * inputs }, () => bound * (2 * prng.next() - 1));
    weights.set(loraA(name), { shape: [rank, inputs], data: a });
    weights.set(loraB(name), { shape: [outputs, rank], data: new Float32Array(outputs * rank) });
  }
  return { config, modules, weights };
}

/**
 * The weights of a model that does what base and adapter do together. Weights that the adapter does
 * not change are the base's own arrays.
 */
export function mergeAdapter(base: Weights, adapter: LoraAdapter): Weights {
  const merged: Weights = new Map(base);
  for (const { name, inputs, outputs, rank, scale } of adapter.modules) {
    const { shape, data } = must(base.get(`${name}.weight`), `${name}.weight`);
    const a = must(adapter.weights.get(loraA(name)), loraA(name)).data;
    const b = must(adapter.weights.get(loraB(name)), loraB(name)).data;
    const out = new Float32Array(data.length);
    const row = new Float64Array(inputs);
    for (let o = 0; o < outputs; o++) {
      for (let i = 0; i < inputs; i++) row[i] = data[o * inputs + i] as number;
      for (let r = 0; r < rank; r++) {
        const factor = scale * (b[o * rank + r] as number);
        for (let i = 0; i < inputs; i++) row[i]! += factor * (a[r * inputs + i] as number);
      }
      out.set(row, o * inputs);
    }
    merged.set(`${name}.weight`, { shape, data: out });
  }
  return merged;
}
