/**
 * The smallest real policy: ln p(next | previous) = log-softmax of one row of a (V, V) table. It
 * has a training session with exact gradients and a sampler on the same weights, both in plain
 * JavaScript, so that the trainer can be tested as it is used, without onnxruntime.
 *
 * For tests only. Simplified: no KV and no batching, a whole step is sampled at once, and every
 * temperature but 0 is read as 1.
 */
import { tokenObjective } from '../../arpo/loss.ts';
import { must } from '../../assert.ts';
import { AppError } from '../../errors.ts';
import type {
  LossSettings,
  ModelConfig,
  ScoreResult,
  TrainResult,
  TrainRow,
  TrainingSession,
  Weights,
} from '../../model/types.ts';
import type { SampleRequest, SampleResult, Sampler, Sequence } from '../../ports.ts';
import { uniform } from '../../prng.ts';

const TABLE = 'bigram.weight';

/** A config whose vocabulary and context are right; a bigram table has no layers to describe. */
export function bigramConfig(vocabulary: number, contextTokens: number): ModelConfig {
  return {
    modelType: 'llama',
    layers: 1,
    hidden: 8,
    heads: 1,
    kvHeads: 1,
    headDim: 8,
    intermediate: 8,
    vocabulary,
    contextTokens,
    ropeTheta: 10_000,
    rmsNormEpsilon: 1e-6,
    qkvBias: false,
    tiedEmbeddings: true,
  };
}

/** A table of logits: row = previous token, column = next token. */
export function bigramWeights(
  vocabulary: number,
  logit: (row: number, column: number) => number,
): Weights {
  const data = new Float32Array(vocabulary * vocabulary);
  for (let i = 0; i < data.length; i++) {
    data[i] = logit(Math.floor(i / vocabulary), i % vocabulary);
  }
  return new Map([[TABLE, { shape: [vocabulary, vocabulary], data }]]);
}

export const tableOf = (weights: Weights): Float32Array => must(weights.get(TABLE), 'table').data;

/** Probabilities and entropy (nats) of the token after `previous`. */
function next(weights: Weights, V: number, previous: number): { p: Float64Array; entropy: number } {
  const row = tableOf(weights).subarray(previous * V, (previous + 1) * V);
  const top = Math.max(...row);
  const p = Float64Array.from(row, (logit) => Math.exp(logit - top));
  const total = p.reduce((sum, value) => sum + value, 0);
  let entropy = 0;
  for (let v = 0; v < V; v++) {
    p[v] = (p[v] as number) / total;
    entropy -= (p[v] as number) * Math.log(p[v] as number);
  }
  return { p, entropy };
}

export function createBigramSession(config: ModelConfig, weights: Weights): TrainingSession {
  const V = config.vocabulary;
  const scoreRow = (tokens: Uint32Array): { logprobs: Float32Array; entropies: Float32Array } => {
    const logprobs = new Float32Array(tokens.length);
    const entropies = new Float32Array(tokens.length);
    for (let t = 1; t < tokens.length; t++) {
      const { p, entropy } = next(weights, V, tokens[t - 1] as number);
      logprobs[t] = Math.log(p[tokens[t] as number] as number);
      entropies[t] = entropy;
    }
    return { logprobs, entropies };
  };
  return {
    config,
    weights,
    async score(rows): Promise<ScoreResult> {
      const scored = rows.map(scoreRow);
      return {
        logprobs: scored.map((row) => row.logprobs),
        entropies: scored.map((row) => row.entropies),
      };
    },
    async lossAndGradients(rows: readonly TrainRow[], loss: LossSettings): Promise<TrainResult> {
      const gradient = new Float64Array(V * V);
      const scored = rows.map((row) => scoreRow(row.tokens));
      let total = 0;
      rows.forEach((row, i) => {
        const logprobs = must(scored[i], 'scored').logprobs;
        for (let t = 1; t < row.tokens.length; t++) {
          const weight = (row.weights[t] as number) / loss.weightSum;
          if (weight === 0) continue;
          const advantage = row.advantages[t] as number;
          const { value, gradient: slope } = tokenObjective(
            logprobs[t] as number,
            row.oldLogprobs[t] as number,
            advantage,
            loss,
          );
          total -= weight * value;
          const previous = row.tokens[t - 1] as number;
          const { p } = next(weights, V, previous);
          for (let v = 0; v < V; v++) {
            const hit = v === row.tokens[t] ? 1 : 0;
            gradient[previous * V + v]! -= weight * slope * (hit - (p[v] as number));
          }
        }
      });
      return {
        loss: total,
        gradients: new Map([[TABLE, Float32Array.from(gradient)]]),
        logprobs: scored.map((row) => row.logprobs),
        entropies: scored.map((row) => row.entropies),
        tokensForwarded: rows.length * Math.max(...rows.map((row) => row.tokens.length)),
      };
    },
    dispose: async () => undefined,
  };
}

/** Samples from the same weights; a fork or truncation only cuts the token list. */
export function createBigramSampler(config: ModelConfig, weights: Weights): Sampler {
  const sequence = (policyVersion: number, tokens: number[]): Sequence => ({
    policyVersion,
    contextTokens: config.contextTokens,
    get length() {
      return tokens.length;
    },
    append(more) {
      if (tokens.length + more.length > config.contextTokens) {
        throw new AppError('context_length_exceeded', `${tokens.length + more.length} tokens`);
      }
      tokens.push(...more);
    },
    sample: async (request) => sampleStep(config, weights, tokens, request),
    truncate(length) {
      tokens.length = length;
    },
    fork: (length) => sequence(policyVersion, tokens.slice(0, length)),
    close: () => undefined,
  });
  return {
    open: ({ policyVersion }) => sequence(policyVersion, []),
  };
}

function sampleStep(
  config: ModelConfig,
  weights: Weights,
  tokens: number[],
  request: SampleRequest,
): SampleResult {
  const drawn: number[] = [];
  const logprobs: number[] = [];
  const entropies: number[] = [];
  const room = Math.min(request.maxTokens, config.contextTokens - tokens.length);
  let finish: SampleResult['finish'] = room < request.maxTokens ? 'context' : 'length';
  for (let n = 0; n < room; n++) {
    const { p, entropy } = next(weights, config.vocabulary, must(tokens.at(-1), 'a prompt'));
    const token = draw(
      p,
      request.sampling.temperature,
      uniform(request.sampling.seed, tokens.length),
    );
    tokens.push(token);
    drawn.push(token);
    logprobs.push(Math.log(p[token] as number));
    entropies.push(entropy);
    if (request.stopTokens.includes(token)) {
      finish = 'stop';
      break;
    }
  }
  const piece = {
    tokens: Uint32Array.from(drawn),
    logprobs: Float32Array.from(logprobs),
    behaviourLogprobs: Float32Array.from(logprobs),
    entropies: Float32Array.from(entropies),
  };
  request.onTokens?.(piece);
  return { ...piece, finish: request.signal?.aborted === true ? 'cancelled' : finish };
}

/** Temperature 0 takes the likeliest token; any other value is read as 1. */
function draw(p: Float64Array, temperature: number, u: number): number {
  if (temperature === 0) return p.indexOf(Math.max(...p));
  let rest = u;
  for (let v = 0; v < p.length - 1; v++) {
    rest -= p[v] as number;
    if (rest < 0) return v;
  }
  return p.length - 1;
}
