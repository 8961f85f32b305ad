/**
 * Policy directories made from the shipped one: its text files with other weights. `perturbed` is
 * the shipped network with a little noise, which is what training gives, without the training.
 * `scripted` is a network that says one text whatever it is asked: the embedding of each token is a
 * unit vector of its own, attention and MLP add nothing, and the head maps that vector to the next
 * token of the text. It makes the server meet calls that no trained policy makes on demand.
 */
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { must } from '../../core/assert.ts';
import { AppError } from '../../core/errors.ts';
import { parameterShapes } from '../../core/model/parameters.ts';
import { loadPolicyModel, savePolicyModel } from '../../core/model/policy-directory.ts';
import type { ModelConfig, Weights } from '../../core/model/types.ts';
import { packageRoot } from '../../core/paths.ts';
import { Prng } from '../../core/prng.ts';
import { loadText } from '../../core/text/load-text.ts';

/** The policy that a server under test starts with. */
export const firstPolicy: string =
  process.env['RAMIFY_POLICY'] ?? join(packageRoot, 'policies', 'embedded');

/** An exact copy. */
export function copyPolicy(directory: string): void {
  mkdirSync(directory, { recursive: true });
  for (const entry of readdirSync(firstPolicy, { withFileTypes: true })) {
    if (entry.isFile()) copyFileSync(join(firstPolicy, entry.name), join(directory, entry.name));
  }
}

/** The same network with noise of `scale` times each tensor's own mean size. */
export function writePerturbedPolicy(directory: string, seed: number, scale = 0.01): void {
  copyPolicy(directory);
  const { config, weights } = loadPolicyModel(firstPolicy);
  const prng = new Prng(seed);
  for (const { data } of weights.values()) {
    const size = data.reduce((sum, value) => sum + Math.abs(value), 0) / data.length;
    for (let i = 0; i < data.length; i++) data[i]! += scale * size * prng.gaussian();
  }
  savePolicyModel(directory, { config, weights });
}

/**
 * A policy that writes `text` after anything that is not a token of it, then goes on from the last
 * token with what `after` says of it: `{ '</result>': '<answer>...' }` is said after a tool's
 * result. Within all texts each token must have one successor. Its window is `contextTokens`.
 */
export function writeScriptedPolicy(
  directory: string,
  text: string,
  options: { after?: Readonly<Record<string, string>>; contextTokens?: number } = {},
): void {
  copyPolicy(directory);
  const { tokenizer } = loadText(firstPolicy);
  const script = tokenizer.encodeTemplate(text);
  const next = new Map<number, number>();
  chain(next, script);
  for (const [piece, continuation] of Object.entries(options.after ?? {})) {
    chain(next, [...tokenizer.encodeTemplate(piece), ...tokenizer.encodeTemplate(continuation)]);
  }
  const config = scriptedConfig(next.size, tokenizer.vocabularySize, options.contextTokens ?? 512);
  const weights: Weights = new Map();
  for (const [name, shape] of parameterShapes(config)) {
    const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
    if (name.includes('norm')) data.fill(1);
    weights.set(name, { shape, data });
  }
  const embedding = must(weights.get('model.embed_tokens.weight'), 'embedding').data;
  const head = must(weights.get('lm_head.weight'), 'head').data;
  // Axis 0: any token that has no successor of its own.
  for (let token = 0; token < config.vocabulary; token++) embedding[token * config.hidden] = 1;
  connect(0, must(script[0], 'a script has a token'));
  [...next].forEach(([token, successor], i) => {
    embedding[token * config.hidden] = 0;
    embedding[token * config.hidden + i + 1] = 1;
    connect(i + 1, successor);
  });
  savePolicyModel(directory, { config, weights });
  function connect(axis: number, successor: number): void {
    head[successor * config.hidden + axis] = 100;
  }
}

function chain(next: Map<number, number>, tokens: readonly number[]): void {
  for (let i = 0; i + 1 < tokens.length; i++) {
    const [token, successor] = [tokens[i] as number, tokens[i + 1] as number];
    if ((next.get(token) ?? successor) !== successor) {
      throw new AppError('internal', `internal: two successors of token ${token} in a script`);
    }
    next.set(token, successor);
  }
}

function scriptedConfig(states: number, vocabulary: number, contextTokens: number): ModelConfig {
  return {
    modelType: 'llama',
    layers: 1,
    hidden: states + 1,
    heads: 1,
    kvHeads: 1,
    headDim: 2,
    intermediate: 2,
    vocabulary,
    contextTokens,
    ropeTheta: 10_000,
    rmsNormEpsilon: 1e-6,
    qkvBias: false,
    tiedEmbeddings: false,
  };
}
