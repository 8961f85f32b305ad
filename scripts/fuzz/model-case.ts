/**
 * One damaged checkpoint: the tiny directories that are damaged, and what must come of loading one.
 * A case is named by seed and index alone, so a failure is repeated by running it again.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { assert } from '../../core/assert.ts';
import { LocalEngine } from '../../core/engine/local-engine.ts';
import { AppError } from '../../core/errors.ts';
import { initialAdapter } from '../../core/model/lora.ts';
import { loadAdapter, loadPolicy, saveAdapter } from '../../core/model/lora-directory.ts';
import { openPolicyModel } from '../../core/model/policy-directory.ts';
import { heldWeights } from '../../core/model/stored-weights.ts';
import { writeCheckpoint } from '../../core/model/testing/checkpoint-writer.ts';
import type { ModelConfig } from '../../core/model/types.ts';
import { mix, Prng } from '../../core/prng.ts';
import { writeEmbeddedTextFiles } from '../../core/text/embedded-text-files.ts';
import { loadText } from '../../core/text/load-text.ts';
import { mutated } from './mutations.ts';

const CONFIG: ModelConfig = {
  modelType: 'qwen2',
  layers: 1,
  hidden: 8,
  heads: 2,
  kvHeads: 1,
  headDim: 4,
  intermediate: 12,
  vocabulary: 300,
  contextTokens: 64,
  ropeTheta: 10_000,
  rmsNormEpsilon: 1e-6,
  qkvBias: true,
  tiedEmbeddings: true,
};
/** Folders of the corpus: one file with all texts, several files, an adapter over the first. */
const SINGLE = 'single';
const SHARDED = 'sharded';
const ADAPTER = 'adapter';
const MODEL_FILES = /^(config\.json|model.*|adapter.*)$/;
/** A session takes much longer than a load. */
const CASES_PER_SAMPLE = 100;
const PROBE = 'what is 7 plus 8?\n<search>Käse 日本</search> <|im_end|>';

/** Fine files by path below the home folder. */
export type Corpus = ReadonlyMap<string, Buffer>;

export interface CaseResult {
  outcome: 'loaded' | 'refused' | 'failed';
  file: string;
  /** Of a failure: what was thrown. */
  reason: string;
}

/** Writes the fine files. */
export function writeCorpus(home: string): Corpus {
  const single = join(home, SINGLE);
  const texts = Array.from({ length: 50 }, (_, i) => `what is ${i} plus ${i + 1}`);
  writeEmbeddedTextFiles(single, { texts, vocabularySize: 290, tools: ['search', 'javascript'] });
  writeCheckpoint(single, CONFIG, { dtype: 'BF16', seed: 1 });
  writeCheckpoint(join(home, SHARDED), CONFIG, { dtype: 'F32', seed: 2, shards: 3 });
  writeAdapter(home);
  const corpus = new Map<string, Buffer>();
  for (const folder of [SINGLE, SHARDED, ADAPTER]) {
    for (const name of readdirSync(join(home, folder))) {
      corpus.set(join(folder, name), readFileSync(join(home, folder, name)));
    }
  }
  return corpus;
}

function writeAdapter(home: string): void {
  const directory = join(home, ADAPTER);
  const config = {
    rank: 2,
    alpha: 4,
    rsLora: false,
    targets: ['q_proj', 'down_proj'],
    excluded: [],
    layers: null,
    rankPattern: {},
    alphaPattern: {},
  };
  const adapter = initialAdapter(CONFIG, config, new Prng(3));
  writeCheckpoint(directory, CONFIG, { dtype: 'F32', seed: 3 });
  saveAdapter(directory, adapter, { baseDirectory: join(home, SINGLE) });
}

/** Damages one file, loads, samples from some of what loads, and puts the file back. */
export async function runCase(
  home: string,
  corpus: Corpus,
  { seed, index }: { seed: number; index: number },
): Promise<CaseResult> {
  const prng = new Prng(mix(seed, index));
  const file = prng.pick([...corpus.keys()]);
  const fine = corpus.get(file) as Buffer;
  writeFileSync(join(home, file), mutated(file, fine, prng));
  try {
    load(home, file);
    if (index % CASES_PER_SAMPLE === 0) await sampleFrom(join(home, dirname(file)));
    return { outcome: 'loaded', file, reason: '' };
  } catch (error) {
    if (error instanceof AppError && error.code === 'policy_invalid') {
      return { outcome: 'refused', file, reason: error.message };
    }
    return { outcome: 'failed', file, reason: error instanceof Error ? (error.stack ?? '') : '' };
  } finally {
    writeFileSync(join(home, file), fine);
  }
}

function load(home: string, file: string): void {
  const [folder, name] = file.split('/') as [string, string];
  const directory = join(home, folder);
  if (folder === ADAPTER) {
    const { adapter } = loadAdapter(directory);
    for (const tensor of adapter.weights.values()) requireWhole(tensor);
    return;
  }
  if (MODEL_FILES.test(name)) {
    const { config, weights } = openPolicyModel(directory);
    assert(config.hidden * config.vocabulary <= 1e6, 'the file has no more');
    for (const tensor of heldWeights(weights).values()) requireWhole(tensor);
  }
  if (folder === SINGLE && !name.startsWith('model')) readProbe(directory);
}

/** Sessions over the tensors where they lie, and a token; a window may be too small for that. */
async function sampleFrom(directory: string): Promise<void> {
  const engine = new LocalEngine({ device: 'cpu', threads: 1, largeBytes: 0, kvBytesMax: 2 ** 22 });
  try {
    await engine.load(1, loadPolicy(directory));
    const sequence = engine.open({ policyVersion: 1 });
    sequence.append([1, 2]);
    const sampling = { temperature: 1, topP: 1, topK: 0, seed: 1 };
    await sequence.sample({ maxTokens: 2, sampling, stopTokens: [] });
  } catch (error) {
    const known = error instanceof AppError && error.code !== 'internal';
    if (!known) throw error;
  } finally {
    await engine.close();
  }
}

/** Encodes and decodes, and asks for the bytes of every token, as the constraints do. */
function readProbe(directory: string): void {
  const { tokenizer } = loadText(directory);
  const ids = tokenizer.encodeTemplate(PROBE);
  assert(typeof tokenizer.decode(ids) === 'string', 'text again');
  let bytes = 0;
  for (let id = 0; id < tokenizer.vocabularySize; id++) bytes += tokenizer.tokenBytes(id).length;
  assert(bytes >= 256, 'a token for every byte');
}

function requireWhole({ shape, data }: { shape: readonly number[]; data: Float32Array }): void {
  const size = shape.reduce((product, dim) => product * dim, 1);
  assert(data.length === size, `${data.length} values for [${shape.join()}]`);
}
