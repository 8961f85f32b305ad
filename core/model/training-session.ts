/**
 * Scores and trains rows of tokens: makes one batch of them, flat or packed, runs the graph, and
 * brings the results back by row. Sessions are made on first use, so a scorer never pays for the
 * gradient graph, nor anyone for a form that is not asked for.
 *
 * With an adapter the base is frozen: its weights are inputs all the same, because onnxruntime then
 * reads the arrays that are there, where initialisers would be held a second time, transposed.
 */
import { must } from '../assert.ts';
import { flatRows, unpadRows, type Wanted } from './flat-rows.ts';
import type { LoraAdapter } from './lora.ts';
import { lossFeeds, objectiveOf } from './loss-feeds.ts';
import { packedRows } from './packed-rows.ts';
import type { Objective } from './policy-loss.ts';
import { RotaryTable } from './rotary.ts';
import { createSession, type Feeds, type ModelSession, type SessionOptions } from './session.ts';
import { gradientName, scoringGraph, trainingGraph } from './training-graph.ts';
import type { LossSettings, ModelConfig, RowForm, TrainingSession, Weights } from './types.ts';

export interface TrainingSessionOptions extends SessionOptions {
  /** Which policy objective is computed, the loss settings of each call say. */
  objective?: 'policy' | 'likelihood';
  /** Trained in place of the weights: the session's `weights` are then its A and B. */
  adapter?: LoraAdapter;
}

/** `weights` are the model's, or those of the adapter's base. */
export function createTrainingSession(
  config: ModelConfig,
  weights: Weights,
  options: TrainingSessionOptions,
): TrainingSession {
  const objectiveFor = (loss: LossSettings): Objective =>
    options.objective === 'likelihood' ? 'likelihood' : objectiveOf(loss);
  // A second run would take the memory of the first once more: 16.5 GB in place of 9.4 GB for 1,024
  // tokens of a 0.5 B model, and no faster.
  const runtime = { ...options, memoryPattern: false };
  const sessions = new Map<string, Promise<ModelSession>>();
  const rotary = new RotaryTable(config);
  const trained = options.adapter?.weights ?? weights;
  const modules = options.adapter?.modules ?? [];
  const parameterFeeds = () => ({
    ...weightFeeds(weights),
    ...(options.adapter && weightFeeds(options.adapter.weights)),
  });

  const sessionFor = (form: RowForm, objective: Objective | null) => {
    const name = `${form} ${JSON.stringify(objective)}`;
    const known = sessions.get(name);
    if (known !== undefined) return known;
    const kind = { form, adapted: modules };
    const graph =
      objective === null ? scoringGraph(config, kind) : trainingGraph(config, objective, kind);
    const made = createSession(graph, runtime);
    sessions.set(name, made);
    return made;
  };
  const batchOf = (rows: readonly Uint32Array[], wanted: Wanted, form: RowForm) =>
    form === 'flat' ? flatRows(config, rotary, rows, wanted) : packedRows(rotary, rows, wanted);

  return {
    config,
    weights: trained,
    async score(rows, form = 'flat') {
      const session = await sessionFor(form, null);
      const batch = batchOf(rows, () => true, form);
      const out = await session.run({ ...parameterFeeds(), ...batch.feeds });
      return {
        logprobs: unpadRows(rows, batch.width, out.logprobs?.data as Float32Array),
        entropies: unpadRows(rows, batch.width, out.entropies?.data as Float32Array),
      };
    },
    async lossAndGradients(rows, loss, form = 'flat') {
      const objective = objectiveFor(loss);
      const session = await sessionFor(form, objective);
      const tokens = rows.map((row) => row.tokens);
      const batch = batchOf(tokens, (row, t) => rows[row]?.weights[t] !== 0, form);
      const feeds = {
        ...parameterFeeds(),
        ...batch.feeds,
        ...lossFeeds(rows, batch.width, loss, objective),
      };
      const out = await session.run(feeds);
      const gradient = (name: string) => must(out[gradientName(name)], name).data as Float32Array;
      return {
        loss: (out.loss?.data as Float32Array)[0] as number,
        gradients: new Map([...trained.keys()].map((name) => [name, gradient(name)])),
        logprobs: unpadRows(tokens, batch.width, out.logprobs?.data as Float32Array),
        entropies: unpadRows(tokens, batch.width, out.entropies?.data as Float32Array),
        tokensForwarded: batch.tokensForwarded,
      };
    },
    async dispose() {
      for (const session of sessions.values()) await (await session).dispose();
      sessions.clear();
    },
  };
}

function weightFeeds(weights: Weights): Feeds {
  const feeds: Feeds = {};
  for (const [name, { shape, data }] of weights) feeds[name] = { dims: shape, data };
  return feeds;
}
