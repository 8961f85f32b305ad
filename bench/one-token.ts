/**
 * The usual way to decode with an ONNX model: one `session.run` a token, past keys and values as
 * inputs, present ones (past and new, concatenated) as outputs that become the next inputs. Made
 * from the same forward pass and the same sampling as the engine, so that only the way differs. It
 * is the peer of the chunked decode in bench:decode, and its slow twin in one-token.test.ts.
 *
 * All rows have equally many tokens, so no mask is needed, which favours this side.
 */
import { must } from '../core/assert.ts';
import * as ops from '../core/graph/functions.ts';
import { Graph, type Value } from '../core/graph/graph.ts';
import { cacheKeys, cacheValues, newKeys, newValues } from '../core/model/cache-graphs.ts';
import { decoderLogits, decoderStates } from '../core/model/decoder.ts';
import type { PolicyModel } from '../core/model/policy-directory.ts';
import { RotaryTable, rotaryInputs } from '../core/model/rotary.ts';
import { sampleTokens } from '../core/model/sampling-graph.ts';
import {
  createSession,
  type Feeds,
  type ModelSession,
  type SessionOptions,
} from '../core/model/session.ts';
import type { ModelConfig } from '../core/model/types.ts';

/**
 * Inputs: ids (B, 1), those of `rotaryInputs` for their position, uniforms (1, B), the past;
 * outputs: the sample, the present.
 */
function oneTokenGraph({ config, weights }: PolicyModel): Graph {
  const graph = new Graph();
  const stored = new Map<string, Value>();
  for (const [name, { shape, data }] of weights) {
    stored.set(name, graph.initializer(name, shape, data));
  }
  const weight = (name: string) => must(stored.get(name), name);
  const { kvHeads, headDim, vocabulary } = config;
  const ids = graph.input('ids', 'int64', ['B', 1]);
  const rotary = rotaryInputs(graph, config, ['B', 1]);
  const uniforms = graph.input('uniforms', 'float32', [1, 'B']);
  const states = decoderStates(
    config,
    { ids, rotary },
    {
      weight,
      attend(layer, keys, values) {
        const shape = ['B', kvHeads, 'S', headDim];
        const pastKeys = graph.input(cacheKeys(layer), 'float32', shape);
        const pastValues = graph.input(cacheValues(layer), 'float32', shape);
        const present = {
          keys: ops.concat([pastKeys, keys], 2),
          values: ops.concat([pastValues, values], 2),
        };
        graph.output(newKeys(layer), present.keys);
        graph.output(newValues(layer), present.values);
        return [{ ...present, mask: null }];
      },
    },
  );
  const logits = ops.reshape(decoderLogits(config, states, weight), [0, vocabulary]); // (B, V)
  const one = (value: number, dtype: 'float32' | 'int64' | 'bool') =>
    graph.initializer(graph.freshName('all'), [1, 1], typed(value, dtype));
  const nothing = graph.initializer(graph.freshName('none'), [0], new Float32Array(0));
  const drawn = sampleTokens(graph, logits, graph.constant(0, 'int64'), {
    uniforms,
    inverseTemperature: one(1, 'float32'),
    greedy: one(0, 'bool'),
    topP: one(1, 'float32'),
    topK: one(vocabulary, 'int64'),
    minP: one(0, 'float32'),
    anyFilter: graph.constant(0, 'bool'),
    anyShape: graph.constant(0, 'bool'),
    penalties: nothing,
    shifts: nothing,
    noLikeliest: graph.input('noLikeliest', 'int64', ['B', 'L']),
  });
  graph.output('tokens', drawn.tokens);
  graph.output('logprobs', drawn.logprobs);
  graph.output('entropies', drawn.entropies);
  return graph;
}

function typed(value: number, dtype: 'float32' | 'int64' | 'bool') {
  if (dtype === 'float32') return Float32Array.of(value);
  return dtype === 'bool' ? Uint8Array.of(value) : BigInt64Array.of(BigInt(value));
}

export class OneTokenDecoder {
  private readonly config: ModelConfig;
  private readonly session: ModelSession;
  private readonly rotary: RotaryTable;
  private cache: Feeds = {};
  private length = 0;

  private constructor(config: ModelConfig, session: ModelSession) {
    this.config = config;
    this.session = session;
    this.rotary = new RotaryTable(config);
  }

  static async create(model: PolicyModel, options: SessionOptions): Promise<OneTokenDecoder> {
    return new OneTokenDecoder(model.config, await createSession(oneTokenGraph(model), options));
  }

  /** Begins with `rows` rows of `length` cached tokens, whose keys and values are all `fill`. */
  begin(rows: number, length: number, fill = 0): void {
    const { layers, kvHeads, headDim } = this.config;
    const dims = [rows, kvHeads, length, headDim];
    const filled = () => new Float32Array(rows * kvHeads * length * headDim).fill(fill);
    this.cache = {};
    for (let layer = 0; layer < layers; layer++) {
      this.cache[cacheKeys(layer)] = { dims, data: filled() };
      this.cache[cacheValues(layer)] = { dims, data: filled() };
    }
    this.length = length;
  }

  /**
   * Takes in one token a row and samples the next one, by inverting the distribution at `uniforms`.
   */
  async step(ids: BigInt64Array, uniforms: Float32Array) {
    const rows = ids.length;
    const out = await this.session.run({
      ids: { dims: [rows, 1], data: ids },
      ...this.rotary.feeds(new Array<number>(rows).fill(this.length), [rows, 1]),
      uniforms: { dims: [1, rows], data: uniforms },
      noLikeliest: { dims: [rows, 0], data: new BigInt64Array(0) },
      ...this.cache,
    });
    for (let layer = 0; layer < this.config.layers; layer++) {
      this.cache[cacheKeys(layer)] = must(out[newKeys(layer)], 'keys');
      this.cache[cacheValues(layer)] = must(out[newValues(layer)], 'values');
    }
    this.length++;
    return {
      tokens: must(out.tokens, 'tokens').data as BigInt64Array,
      logprobs: must(out.logprobs, 'logprobs').data as Float32Array,
      entropies: must(out.entropies, 'entropies').data as Float32Array,
    };
  }

  async dispose(): Promise<void> {
    await this.session.dispose();
  }
}
