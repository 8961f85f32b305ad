/** Lines of a streamed body: however it is cut into pieces, within its bounds. */
import { gzipSync } from 'node:zlib';
import { expect, test, vi } from 'vitest';
import { LIMITS } from '../core/limits.ts';
import { freshSeed, Prng } from '../core/prng.ts';
import { bodyLines } from './body-lines.ts';
import type { Line } from './body-lines.ts';

const never = new AbortController().signal;
const open = { compressed: false, bytesMax: 1e9, signal: never };

/** The bytes in pieces of random length. */
function streamOf(bytes: Uint8Array, prng: Prng): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull: (controller) => {
      if (at >= bytes.length) return controller.close();
      const end = at + 1 + prng.below(9);
      controller.enqueue(bytes.slice(at, end));
      at = end;
    },
  });
}

async function all(lines: AsyncIterable<Line>): Promise<Line[]> {
  const out: Line[] = [];
  for await (const line of lines) out.push(line);
  return out;
}

test.each([false, true])('any cut gives the same lines (compressed: %s)', async (compressed) => {
  const seed = freshSeed();
  const prng = new Prng(seed);
  const bytes = Buffer.from('{"é":1}\n\n  \r\nzwei 😀\nohne Ende');
  const expected = [
    { number: 1, text: '{"é":1}' },
    { number: 4, text: 'zwei 😀' },
    { number: 5, text: 'ohne Ende' },
  ];
  for (let round = 0; round < 50; round++) {
    const stream = streamOf(compressed ? gzipSync(bytes) : bytes, prng);
    const lines = await all(bodyLines(stream, { ...open, compressed }));
    expect(lines, `seed ${seed}`).toEqual(expected);
  }
  expect(await all(bodyLines(null, open))).toEqual([]);
});

test('what is too long, broken or no text is refused by its line', async () => {
  const prng = new Prng(1);
  const long = Buffer.alloc(LIMITS.importLineCharsMax + 1, 'x');
  const whole = (bytes: Uint8Array): ReadableStream<Uint8Array> =>
    new Response(Uint8Array.from(bytes)).body as ReadableStream<Uint8Array>;
  const refused: [AsyncIterable<Line>, object][] = [
    [
      bodyLines(whole(Buffer.concat([Buffer.from('a\n'), long])), open),
      { code: 'payload_too_large', message: expect.stringContaining('line 2') as string },
    ],
    [
      bodyLines(whole(gzipSync(Buffer.alloc(5_000, 'x'))), {
        ...open,
        ...{ compressed: true, bytesMax: 4_999 },
      }),
      { code: 'payload_too_large' },
    ],
    [
      bodyLines(streamOf(Buffer.from([0x61, 0x0a, 0xff, 0x0a]), prng), open),
      { code: 'invalid_request', param: 'line 1' },
    ],
    [
      bodyLines(streamOf(Buffer.from('text'), prng), { ...open, compressed: true }),
      { code: 'invalid_request' },
    ],
    [
      bodyLines(whole(gzipSync('cut off').subarray(0, 12)), { ...open, compressed: true }),
      { code: 'invalid_request' },
    ],
  ];
  for (const [lines, error] of refused) await expect(all(lines)).rejects.toMatchObject(error);
});

test('a client that falls silent, and one that leaves, end it', async () => {
  vi.useFakeTimers();
  const silent = (): ReadableStream<Uint8Array> => new ReadableStream();
  const waiting = all(bodyLines(silent(), open));
  const failed = expect(waiting).rejects.toMatchObject({ code: 'request_timeout' });
  await vi.advanceTimersByTimeAsync(LIMITS.importStallMs);
  await failed;
  vi.useRealTimers();
  const left = new AbortController();
  const leaving = all(bodyLines(silent(), { ...open, signal: left.signal }));
  left.abort();
  await expect(leaving).rejects.toMatchObject({ code: 'request_cancelled' });
});
