/** Draws of one and of two steps against the cumulative sum in float64. */
import { expect, test } from 'vitest';
import { must } from '../assert.ts';
import { Graph } from '../graph/graph.ts';
import { Prng } from '../prng.ts';
import { createSession } from './session.ts';
import { drawTokens } from './token-draw.ts';

const ROWS = 64;

async function drawAll(vocabulary: number, masses: Float32Array, draws: Float32Array) {
  const graph = new Graph();
  const { drawn, mass } = drawTokens(
    graph.input('masses', 'float32', ['B', vocabulary]),
    graph.input('draws', 'float32', ['B', 1]),
  );
  graph.output('drawn', drawn);
  graph.output('mass', mass);
  const session = await createSession(graph, { device: 'cpu', threads: 1 });
  const out = await session.run({
    masses: { dims: [ROWS, vocabulary], data: masses },
    draws: { dims: [ROWS, 1], data: draws },
  });
  await session.dispose();
  return [...(must(out.drawn, 'drawn').data as BigInt64Array)].map(Number);
}

test.each([
  { vocabulary: 40, share: 1 },
  { vocabulary: 4096, share: 0.01 },
  { vocabulary: 5000, share: 1 },
  { vocabulary: 5120, share: 0.3 },
  // Most blocks are empty, as after top-k.
  { vocabulary: 9999, share: 0.0005 },
])('of $vocabulary tokens, of which $share have mass', async ({ vocabulary, share }) => {
  const prng = new Prng(vocabulary);
  const masses = Float32Array.from({ length: ROWS * vocabulary }, () =>
    prng.next() < share ? Math.exp(3 * prng.gaussian()) : 0,
  );
  // At least one token of every row has mass; the draws reach to both ends.
  for (let row = 0; row < ROWS; row++) masses[row * vocabulary + prng.below(vocabulary)] = 1;
  const draws = Float32Array.from({ length: ROWS }, (_, i) =>
    i === 0 ? 1e-7 : i === 1 ? 1 - 2 ** -24 : prng.next(),
  );
  const drawn = await drawAll(vocabulary, masses, draws);
  drawn.forEach((token, row) => {
    const all = masses.subarray(row * vocabulary, (row + 1) * vocabulary);
    const upTo = (end: number) => all.subarray(0, end).reduce((sum, mass) => sum + mass, 0);
    const bound = must(draws[row], 'draw') * upTo(vocabulary);
    const slack = 1e-5 * upTo(vocabulary);
    expect(all[token]).toBeGreaterThan(0);
    expect(upTo(token)).toBeLessThan(bound + slack);
    expect(upTo(token + 1)).toBeGreaterThan(bound - slack);
  });
});
