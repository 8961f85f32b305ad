/**
 * Rows that fall on one place are all added, on several threads too. onnxruntime's ScatterND is not
 * fit for that: its threads add without a lock.
 */
import { expect, it } from 'vitest';
import { createSession } from '../model/session.ts';
import * as ops from './functions.ts';
import { Graph } from './graph.ts';

const ROWS = 20_000;
const WIDTH = 64;

it('loses no row of many for one place, on two threads, run after run', async () => {
  const graph = new Graph();
  const ids = graph.input('ids', 'int64', ['n', 1]);
  const rows = graph.input('rows', 'float32', ['n', WIDTH]);
  const table = graph.input('table', 'float32', ['v', WIDTH]);
  graph.output('sum', ops.scatterAddRows(ids, rows, table));
  const session = await createSession(graph, { device: 'cpu', threads: 2 });
  const feeds = {
    // Neighbours alternate between two places, so that threads meet at both.
    ids: { dims: [ROWS, 1], data: BigInt64Array.from({ length: ROWS }, (_, i) => BigInt(i % 2)) },
    rows: { dims: [ROWS, WIDTH], data: new Float32Array(ROWS * WIDTH).fill(1) },
    table: { dims: [2, WIDTH], data: new Float32Array(2 * WIDTH) },
  };
  for (let run = 0; run < 5; run++) {
    const { sum } = await session.run(feeds);
    expect(new Set(sum?.data as Float32Array)).toEqual(new Set([ROWS / 2]));
  }
  await session.dispose();
});
