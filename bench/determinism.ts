/**
 * npm run bench:determinism: whether a request's tokens depend on its company. Random requests are
 * sampled alone and then again among 1 to 15 others of other lengths. Once nothing is shared
 * between requests (`batch`); once the repeat takes whole blocks of its prompt from the prefix
 * cache, which were computed in other pieces (`cache`). Counted are requests whose tokens part,
 * log-probabilities before that which differ in any bit, and their largest difference.
 */
import { LocalEngine } from '../core/engine/local-engine.ts';
import { Prng } from '../core/prng.ts';
import type { SampleResult } from '../core/ports.ts';
import { benchModels, type BenchModel } from './models.ts';
import { benchOptions, printTable, recordResults, type Row } from './report.ts';

const TOKENS = 100;
const PROMPT_MAX = 400;
const OTHERS_MAX = 15;

interface Request {
  prompt: number[];
  maxTokens: number;
  seed: number;
}

const options = benchOptions(30);
const rows: Row[] = [];
for (const model of benchModels().slice(0, 1)) {
  rows.push(await benchModel(model, 'batch'), await benchModel(model, 'cache'));
}
printTable(rows);
recordResults('determinism', options, rows);

async function benchModel(model: BenchModel, company: 'batch' | 'cache'): Promise<Row> {
  const prng = new Prng(3);
  const { vocabulary } = model.config;
  const draw = (tokens: number): Request => ({
    prompt: Array.from({ length: 1 + prng.below(PROMPT_MAX) }, () => prng.below(vocabulary)),
    maxTokens: tokens,
    seed: prng.below(2 ** 31),
  });
  const session = { device: 'cpu', threads: options.threads } as const;
  const alone = new LocalEngine({ ...session, prefixCache: false });
  const crowd = new LocalEngine({ ...session, prefixCache: company === 'cache' });
  for (const engine of [alone, crowd]) await engine.load(1, model);
  const counts = { tokens: 0, parted: 0, bits: 0, largest: 0 };
  for (let repeat = 0; repeat < options.repeats; repeat++) {
    const request = draw(TOKENS);
    const expected = await sample(alone, request);
    // Cut elsewhere than the repeat will be, so that its pieces are others.
    const cut = { ...request, prompt: request.prompt.slice(0, 1 + prng.below(PROMPT_MAX)) };
    if (company === 'cache') await sample(crowd, { ...cut, maxTokens: 1 });
    const others = Array.from({ length: 1 + prng.below(OTHERS_MAX) }, () =>
      draw(1 + prng.below(2 * TOKENS)),
    );
    const [found] = await Promise.all([request, ...others].map((one) => sample(crowd, one)));
    count(counts, expected, found!);
  }
  await alone.close();
  await crowd.close();
  return {
    model: model.name,
    company,
    requests: options.repeats,
    'tokens before parting': counts.tokens,
    'requests that parted': counts.parted,
    'logprobs differing in a bit': counts.bits,
    'largest difference': counts.largest.toExponential(1),
  };
}

async function sample(engine: LocalEngine, request: Request): Promise<SampleResult> {
  const sequence = engine.open({ policyVersion: 1 });
  sequence.append(request.prompt);
  const sampling = { temperature: 1, topP: 1, topK: 0, seed: request.seed };
  const { maxTokens } = request;
  const result = await sequence.sample({ maxTokens, sampling, stopTokens: [] });
  sequence.close();
  return result;
}

function count(
  counts: { tokens: number; parted: number; bits: number; largest: number },
  a: SampleResult,
  b: SampleResult,
): void {
  const flip = a.tokens.findIndex((token, i) => token !== b.tokens[i]);
  const same = flip === -1 ? a.tokens.length : flip;
  counts.parted += +(flip >= 0);
  counts.tokens += same;
  for (let i = 0; i < same; i++) {
    const gap = Math.abs(a.logprobs[i]! - b.logprobs[i]!);
    counts.bits += +(gap > 0);
    counts.largest = Math.max(counts.largest, gap);
  }
}
