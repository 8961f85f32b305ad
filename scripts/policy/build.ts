/**
 * Builds policies/embedded/ from nothing (`npm run policy:build`): tokenizer, random weights, cold
 * start, evaluation, model card. Seeded; needs only what the repository holds. About 25 minutes on
 * two cores.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createTrainingSession } from '../../core/model/training-session.ts';
import { initialWeights, parameterCount } from '../../core/model/parameters.ts';
import { savePolicyModel } from '../../core/model/policy-directory.ts';
import { packageRoot } from '../../core/paths.ts';
import { mix, Prng } from '../../core/prng.ts';
import { writeEmbeddedTextFiles } from '../../core/text/embedded-text-files.ts';
import { openSearchIndex } from '../../db/search-index.ts';
import { loadCountries } from '../corpus/countries.ts';
import { buildFacts } from '../corpus/facts.ts';
import { evaluateArithmetic } from '../tasks/arithmetic.ts';
import { FAMILY_NAMES, freshTrainTask, taskFamilies } from '../tasks/tasks.ts';
import { coldStart } from './cold-start.ts';
import { evaluatePolicy, evaluationTable, readTasks } from './evaluation.ts';
import { modelCard } from './model-card.ts';
import { COLD_START, SHAPE, TEXT } from './recipe.ts';
import { traceRow } from './training-rows.ts';
import { DEFAULT_MISTAKES, scaleMistakes, trace, type Trace } from './traces.ts';

const { values: flags } = parseArgs({
  options: {
    out: { type: 'string', default: join(packageRoot, 'policies', 'embedded') },
    steps: { type: 'string', default: String(COLD_START.steps) },
    threads: { type: 'string', default: '2' },
  },
});

const EVALUATION_SEED = 1;

const facts = buildFacts(loadCountries());
const families = taskFamilies(facts);
const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
const tools = {
  facts,
  evaluate: evaluateArithmetic,
  search: (query: string) =>
    index
      .search(query, 2)
      .map((hit) => hit.text)
      .join('\n'),
};

/** Trace number `i` of a stream: families in turn, every trace from its own seed. */
function traceAt(stream: number, i: number, mistakes: number): Trace {
  const prng = new Prng(mix(COLD_START.seed, stream, i));
  const family = FAMILY_NAMES[i % FAMILY_NAMES.length] as (typeof FAMILY_NAMES)[number];
  const task = freshTrainTask(families, family, prng);
  return trace(task, prng, tools, scaleMistakes(DEFAULT_MISTAKES, mistakes));
}

const directory = flags.out;
rmSync(directory, { recursive: true, force: true });
mkdirSync(directory, { recursive: true });

const started = performance.now();
const seconds = () => ((performance.now() - started) / 1000).toFixed(0);
const texts = Array.from({ length: TEXT.tokenizerTraces }, (_, i) => {
  const { question, steps } = traceAt(0, i, 1);
  return [question, ...steps.map((step) => step.text)].join('\n');
});
const text = writeEmbeddedTextFiles(directory, { ...TEXT, texts });
const config = { ...SHAPE, vocabulary: text.tokenizer.vocabularySize };
console.log(`${seconds()} s: ${config.vocabulary} tokens, ${parameterCount(config)} parameters`);

const weights = initialWeights(config, new Prng(COLD_START.seed));
const session = createTrainingSession(config, weights, {
  device: 'cpu',
  threads: Number(flags.threads),
  objective: 'likelihood',
});
const steps = Number(flags.steps);
const idealSteps = Math.round(steps * COLD_START.idealShare);
let tokens = 0;
await coldStart({
  ...COLD_START,
  session,
  steps,
  rows(step, count) {
    const mistakes = step <= idealSteps ? 0 : COLD_START.mistakes;
    const rows = Array.from({ length: count }, (_, i) =>
      traceRow(traceAt(1, step * count + i, mistakes), text, []),
    );
    tokens += rows.reduce((sum, row) => sum + row.tokens.length, 0);
    return rows;
  },
  onStep(step, loss) {
    if (step % 20 !== 0) return;
    const rate = Math.round(tokens / ((performance.now() - started) / 1000));
    console.log(`${seconds()} s: step ${step}/${steps}, loss ${loss.toFixed(3)}, ${rate} tokens/s`);
  },
});
savePolicyModel(directory, { config, weights });
await session.dispose();
index.close();

const minutes = (performance.now() - started) / 60_000;
const evaluation = await evaluatePolicy(
  directory,
  readTasks('test'),
  EVALUATION_SEED,
  Number(flags.threads),
);
const machine = `${flags.threads} cores of ${cpus()[0]?.model ?? 'an unknown processor'}`;
const card = modelCard({
  config,
  steps,
  tokens,
  minutes,
  machine,
  evaluation,
  seed: EVALUATION_SEED,
});
writeFileSync(join(directory, 'README.md'), card);
console.log(`${seconds()} s: done\n${evaluationTable(evaluation)}`);
