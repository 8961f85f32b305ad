/** Events survive any cut of the bytes, also inside a character. */
import { expect, it } from 'vitest';
import { serverSentEvents } from './event-stream.ts';

const TEXT =
  'event: step.completed\nid: 1\ndata: {"step":1}\n\n: keep-alive\n\ndata: Åland\ndata: two\n\n';

async function* inPieces(size: number): AsyncGenerator<Uint8Array> {
  const bytes = new TextEncoder().encode(TEXT);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

it.each([1, 2, 7, 1_000])('reads events that come in pieces of %i bytes', async (size) => {
  const events = [];
  for await (const event of serverSentEvents(inPieces(size))) events.push(event);
  expect(events).toEqual([
    { event: 'step.completed', data: '{"step":1}', id: '1' },
    { event: 'message', data: 'Åland\ntwo', id: null },
  ]);
});

it('drops an event that was cut off', async () => {
  async function* cut(): AsyncGenerator<Uint8Array> {
    yield new TextEncoder().encode('data: whole\n\ndata: cut');
  }
  const events = [];
  for await (const event of serverSentEvents(cut())) events.push(event);
  expect(events).toEqual([{ event: 'message', data: 'whole', id: null }]);
});
