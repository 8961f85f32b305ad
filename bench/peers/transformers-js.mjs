/**
 * Decodes with transformers.js (onnxruntime-node, float32) through its own `generate`: greedy, all
 * rows of a batch together. Timed is what lies between the first and the last new token, so that
 * the prompt does not count. Arguments: the model's directory, the number of threads.
 */
import process from 'node:process';
import { AutoModelForCausalLM, StoppingCriteria, Tensor, env } from '@huggingface/transformers';
import { promptOf, serve } from './serve.mjs';

const [directory, threads] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = '';
const model = await AutoModelForCausalLM.from_pretrained(directory, {
  device: 'cpu',
  dtype: 'fp32',
  local_files_only: true,
  session_options: { intraOpNumThreads: Number(threads), interOpNumThreads: 1 },
});

/** Never stops; asked after every token, it keeps the time. */
class Clock extends StoppingCriteria {
  times = [];

  _call(ids) {
    this.times.push(performance.now());
    return ids.map(() => false);
  }
}

serve(async ({ batch, cache, tokens }) => {
  const rows = Array.from({ length: batch }, (_, row) =>
    promptOf(row, cache, model.config.vocab_size),
  );
  const ids = BigInt64Array.from(rows.flat(), BigInt);
  const clock = new Clock();
  const output = await model.generate({
    inputs: new Tensor('int64', ids, [batch, cache]),
    attention_mask: new Tensor('int64', new BigInt64Array(batch * cache).fill(1n), [batch, cache]),
    max_new_tokens: tokens + 1,
    do_sample: false,
    eos_token_id: null,
    stopping_criteria: clock,
  });
  const seconds = (clock.times.at(-1) - clock.times[0]) / 1000;
  const first = output.tolist()[0].slice(cache).map(Number);
  return { seconds, sampled: clock.times.length - 1, first };
});
