/**
 * The child's side of a peer: the bench sends {id, batch, cache, tokens, ...} and gets {id, result}
 * or {id, error}. One request at a time; the process ends when its parent goes away.
 */
import process from 'node:process';

/** @param {(request: object) => Promise<object>} measure */
export function serve(measure) {
  process.on('disconnect', () => process.exit(0));
  process.on('message', async (request) => {
    try {
      process.send({ id: request.id, result: await measure(request) });
    } catch (error) {
      process.send({ id: request.id, error: String(error?.stack ?? error) });
    }
  });
  process.send({ ready: true });
}

/** The prompt of a row: the same pseudo-random ids for every engine. */
export function promptOf(row, length, vocabulary) {
  return Array.from({ length }, (_, i) => 3 + ((row * 7919 + i * 104729 + 17) % (vocabulary - 3)));
}
