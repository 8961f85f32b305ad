/** The rotary table: values by position, growth, padding past the window, what it feeds. */
import { describe, expect, it } from 'vitest';
import { Graph } from '../graph/graph.ts';
import { inverseFrequencies } from './rope-frequencies.ts';
import { RotaryTable, rotaryInputs } from './rotary.ts';
import { TINY_CONFIGS } from './testing/tiny-models.ts';
import type { ModelConfig } from './types.ts';

const LLAMA = { ...TINY_CONFIGS.llama!, contextTokens: 1000 };
const YARN = { ...TINY_CONFIGS['llama, yarn']!, contextTokens: 1000 };

/** cosines and sines of one position, straight from the definition. */
function expected(config: ModelConfig, position: number, gain: number) {
  const angles = [...inverseFrequencies(config)].map((f) => Math.fround(f * position));
  return {
    cosines: angles.map((angle) => Math.fround(gain * Math.cos(angle))),
    sines: angles.map((angle) => Math.fround(gain * Math.sin(angle))),
  };
}

describe('the rotary table', () => {
  it.each([
    ['plain', LLAMA, 1],
    ['yarn, with its attention factor', YARN, 1.2],
  ] as const)('has cosines and sines of any position, in any order: %s', (_name, config, gain) => {
    const table = new RotaryTable(config);
    const positions = [0, 1, 63, 64, 999, 5, 500, 128];
    const { places, cosines, sines } = table.feeds(positions, [2, 4]);
    const half = config.headDim / 2;
    positions.forEach((position, i) => {
      const place = Number(places!.data[i]);
      const row = (data: unknown) => [
        ...(data as Float32Array).subarray(place * half, (place + 1) * half),
      ];
      expect(row(cosines!.data)).toEqual(expected(config, position, gain).cosines);
      expect(row(sines!.data)).toEqual(expected(config, position, gain).sines);
    });
    // Growing on the way from small positions to large ones changes nothing.
    const grown = new RotaryTable(config);
    for (const position of [3, 70, 400]) grown.feeds([position], [1]);
    expect(grown.feeds(positions, [8])).toEqual(table.feeds(positions, [8]));
  });

  it('gives padding past the window the last row', () => {
    const table = new RotaryTable({ ...LLAMA, contextTokens: 70 });
    expect(table.feeds([70, 1e9], [2])).toEqual(table.feeds([69, 69], [2]));
  });

  it('feeds what the graph declares, one row for equal positions', () => {
    const graph = new Graph();
    rotaryInputs(graph, LLAMA, ['steps', 'B', 1]);
    const feeds = new RotaryTable(LLAMA).feeds([7, 8, 9, 7, 8, 9], [2, 3, 1]);
    expect(Object.keys(feeds)).toEqual(graph.inputs.map(({ name }) => name));
    expect(feeds.places).toEqual({
      dims: [2, 3, 1],
      data: BigInt64Array.from([0, 1, 2, 0, 1, 2], BigInt),
    });
    for (const name of ['cosines', 'sines']) {
      expect(feeds[name]!.dims).toEqual([3, LLAMA.headDim / 2]);
      expect(feeds[name]!.data.length).toBe(3 * (LLAMA.headDim / 2));
    }
  });
});
