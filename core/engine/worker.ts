/**
 * The policy worker: a process around a LocalEngine. `session.run` holds its thread until a chunk
 * is done, and a fault in native code or a lack of memory ends its process: neither may be the
 * server's. It only translates messages; worker-protocol.ts has the rules. It never outlives the
 * server: when the channel closes, it exits.
 */
import { assert, must, unreachable } from '../assert.ts';
import { toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import { loadPolicy, textDirectory } from '../model/lora-directory.ts';
import type { Sequence } from '../ports.ts';
import { tokenBytesOf } from '../text/token-mask.ts';
import { loadTokenizer } from '../text/tokenizer.ts';
import { LocalEngine } from './local-engine.ts';
import type { FromWorker, ToWorker, WireError, WorkerSettings } from './worker-protocol.ts';

assert(process.send !== undefined, 'the policy worker runs only as a forked child of the server');
process.title = 'ramify policy worker';
process.on('disconnect', () => process.exit(1));
// A signal to the whole process group: the server finishes what is under way and then stops us.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);

const engine = new LocalEngine({
  ...(JSON.parse(process.argv[2] ?? '{}') as WorkerSettings),
  // The client refuses beyond the bounds; a closing sequence may still be on its way here.
  sequencesMax: 2 * LIMITS.sequencesMax,
  queueMax: 2 * LIMITS.sampleQueueMax,
});
const sequences = new Map<number, Sequence>();
const samples = new Map<number, AbortController>();

const post = (message: FromWorker): void => {
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
};
const sequenceOf = (id: number): Sequence => must(sequences.get(id), `sequence ${id}`);

process.on('message', (message) => handle(message as ToWorker));
post({ type: 'ready' });

function handle(message: ToWorker): void {
  switch (message.type) {
    case 'load':
      return answer(message.call, async () => {
        const model = loadPolicy(message.directory);
        const vocabulary = () => tokenBytesOf(loadTokenizer(textDirectory(message.directory)));
        await engine.load(message.version, { ...model, vocabulary });
        return engine.windowOf(message.version);
      });
    case 'unload':
      return answer(message.call, () => engine.unload(message.version));
    case 'stop':
      for (const abort of samples.values()) abort.abort();
      return answer(message.call, () => engine.close());
    case 'open': {
      const { sequence, version: policyVersion, priority } = message;
      sequences.set(sequence, engine.open({ policyVersion, priority }));
      return;
    }
    case 'append':
      return sequenceOf(message.sequence).append(message.tokens);
    case 'truncate':
      return sequenceOf(message.sequence).truncate(message.length);
    case 'fork':
      sequences.set(message.sequence, sequenceOf(message.from).fork(message.length));
      return;
    case 'close':
      sequenceOf(message.sequence).close();
      sequences.delete(message.sequence);
      return;
    case 'sample':
      return sample(message);
    case 'cancel':
      samples.get(message.sample)?.abort();
      return;
    default:
      unreachable(message, 'worker message');
  }
}

function answer(call: number, work: () => Promise<number | void>): void {
  work().then(
    (contextTokens) => post({ type: 'done', call, error: null, contextTokens: contextTokens ?? 0 }),
    (thrown: unknown) => post({ type: 'done', call, error: wireError(thrown), contextTokens: 0 }),
  );
}

function sample(message: Extract<ToWorker, { type: 'sample' }>): void {
  const { sample: id, maxTokens, sampling, stopTokens, stopTexts, likeliest } = message;
  const abort = new AbortController();
  samples.set(id, abort);
  sequenceOf(message.sequence)
    .sample({
      maxTokens,
      sampling,
      stopTokens,
      stopTexts,
      likeliest,
      signal: abort.signal,
      ...(message.streamed && { onTokens: (piece) => post({ type: 'tokens', sample: id, piece }) }),
    })
    .then(
      (result) => post({ type: 'sampled', sample: id, result }),
      (thrown: unknown) => post({ type: 'failed', sample: id, error: wireError(thrown) }),
    )
    .finally(() => samples.delete(id));
}

function wireError(thrown: unknown): WireError {
  const { code, message, param } = toAppError(thrown);
  return { code, message, param };
}
