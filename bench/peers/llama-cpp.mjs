/**
 * Decodes with llama.cpp through node-llama-cpp: one context, one sequence a row, greedy, batched
 * by its own scheduler. Timed from the moment when every row has its first new token, so that the
 * prompt does not count. Arguments: the GGUF file. A request also has `threads`.
 */
import process from 'node:process';
import { getLlama } from 'node-llama-cpp';
import { promptOf, serve } from './serve.mjs';

const [file] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: 0 });
const model = await llama.loadModel({ modelPath: file, useMmap: false });
let context = null;
let made = '';

/** A context for this many rows; the last one is kept, because making one takes time. */
async function contextFor(rows, columns, threads) {
  const key = `${rows} ${columns} ${threads}`;
  if (made === key) return context;
  await context?.dispose();
  context = await model.createContext({
    sequences: rows,
    contextSize: columns,
    batchSize: Math.max(512, rows),
    threads,
    flashAttention: process.env.LLAMA_FLASH === '1',
  });
  made = key;
  return context;
}

serve(async ({ batch, cache, tokens, threads, vocabulary }) => {
  const now = await contextFor(batch, cache + tokens + 8, threads);
  const sequences = Array.from({ length: batch }, () => now.getSequence());
  const first = [];
  let waiting = batch;
  let start = 0;
  let end = 0;
  let release;
  const allBegan = new Promise((resolve) => (release = resolve));
  const decode = async (sequence, row) => {
    const options = { temperature: 0, yieldEogToken: true };
    let count = 0;
    for await (const token of sequence.evaluate(promptOf(row, cache, vocabulary), options)) {
      if (row === 0) first.push(token);
      if (count === 0) {
        if (--waiting === 0) {
          start = performance.now();
          release();
        }
        await allBegan;
      }
      if (++count > tokens) break;
    }
    end = performance.now();
  };
  try {
    await Promise.all(sequences.map(decode));
  } finally {
    for (const sequence of sequences) await sequence.dispose();
  }
  return { seconds: (end - start) / 1000, sampled: tokens, first };
});
