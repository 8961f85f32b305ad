/**
 * The engines that bench:engine compares, each started and stopped alike and asked for the same
 * work: prefill a prompt in every row, then sample so many tokens, of which only the latter counts.
 * The peers decode greedily; ours samples at temperature 1 with log-probabilities and entropies.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { LocalEngine } from '../core/engine/local-engine.ts';
import { openPolicyModel, savePolicyModel } from '../core/model/policy-directory.ts';
import type { PolicyModel, ServedModel } from '../core/model/policy-directory.ts';
import { writeGguf } from './peers/gguf.ts';
import { writeOnnxDirectory } from './peers/onnx-directory.ts';
import { installPeers, Peer } from './peers/peer.ts';
import { secondsOf } from './report.ts';

export interface Size {
  /** Tokens of every prompt. */
  cache: number;
  /** Tokens sampled in every row. */
  tokens: number;
}

export interface Timing {
  seconds: number;
  /** The first row's tokens. */
  first: readonly number[];
}

export interface Running {
  run(batch: number): Promise<Timing>;
  stop(): Promise<void>;
}

export interface Contender {
  name: string;
  start(): Promise<Running>;
}

/** The model as a directory, read from there as the server does: nothing of it stays in memory. */
export function storedModel(model: PolicyModel, folder: string): ServedModel {
  const directory = join(folder, 'policy');
  mkdirSync(directory);
  savePolicyModel(directory, model);
  return openPolicyModel(directory);
}

export function ramify(model: ServedModel, threads: number, size: Size): Contender {
  return {
    name: 'ramify',
    async start() {
      const engine = new LocalEngine({ device: 'cpu', threads });
      await engine.load(1, model);
      return {
        run: (batch) => decodeSeconds(engine, model.config.vocabulary, batch, size),
        stop: () => engine.close(),
      };
    },
  };
}

/** Prefills and samples one token untimed, then times the others in every row. */
export async function decodeSeconds(
  engine: LocalEngine,
  vocabulary: number,
  batch: number,
  { cache, tokens }: Size,
  temperature = 1,
): Promise<Timing> {
  const sequences = Array.from({ length: batch }, (_, row) => {
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append(promptOf(row, cache, vocabulary));
    return sequence;
  });
  const sample = (maxTokens: number) =>
    Promise.all(
      sequences.map((sequence, seed) =>
        sequence.sample({
          maxTokens,
          sampling: { temperature, topP: 1, topK: 0, seed },
          stopTokens: [],
        }),
      ),
    );
  const begun = await sample(1);
  let rest = begun;
  const seconds = await secondsOf(async () => (rest = await sample(tokens)));
  for (const sequence of sequences) sequence.close();
  return { seconds, first: [...begun[0]!.tokens, ...rest[0]!.tokens] };
}

/** The same prompt as in peers/serve.mjs. */
function promptOf(row: number, length: number, vocabulary: number): number[] {
  return Array.from({ length }, (_, i) => 3 + ((row * 7919 + i * 104729 + 17) % (vocabulary - 3)));
}

/** Writes the model in the peers' formats into `folder`; one contender a peer and thread count. */
export function peerContenders(
  model: PolicyModel,
  folder: string,
  threadCounts: readonly number[],
  size: Size,
): Contender[] {
  installPeers();
  const gguf = join(folder, 'model.gguf');
  writeGguf(gguf, model);
  const onnx = join(folder, 'onnx-model');
  writeOnnxDirectory(onnx, model);
  const contender = (name: string, script: string, args: string[], threads: number): Contender => ({
    name: `${name} ${threads}t`,
    async start() {
      const peer = await Peer.start(script, args);
      const request = { ...size, threads, vocabulary: model.config.vocabulary };
      return {
        run: (batch) => peer.measure({ ...request, batch }),
        stop: () => Promise.resolve(peer.stop()),
      };
    },
  });
  return threadCounts.flatMap((threads) => [
    contender('transformers.js', 'transformers-js.mjs', [onnx, String(threads)], threads),
    contender('llama.cpp', 'llama-cpp.mjs', [gguf], threads),
  ]);
}
