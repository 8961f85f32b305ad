/** Bounded mapping: order, bound, and an orderly end after a failure. */
import { describe, expect, it } from 'vitest';
import { mapBounded } from './concurrency.ts';

const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe('mapBounded', () => {
  it('keeps the order and the bound', async () => {
    let running = 0;
    let most = 0;
    const results = await mapBounded(
      [5, 1, 4, 2, 3, 0],
      2,
      async (item, index) => {
        most = Math.max(most, ++running);
        await turns(item);
        running--;
        return `${index}:${item}`;
      },
      () => undefined,
    );
    expect(results).toEqual(['0:5', '1:1', '2:4', '3:2', '4:3', '5:0']);
    expect(most).toBe(2);
  });

  it('after a failure starts nothing, waits for what runs, and throws the first error', async () => {
    const log: string[] = [];
    const work = mapBounded(
      [1, 2, 3, 4],
      2,
      async (item) => {
        log.push(`start ${item}`);
        await turns(item * 2);
        log.push(`end ${item}`);
        throw new Error(`item ${item}`);
      },
      () => log.push('abort'),
    );
    await expect(work).rejects.toThrow('item 1');
    expect(log).toEqual(['start 1', 'start 2', 'end 1', 'abort', 'end 2']);
  });

  it('maps nothing to nothing', async () => {
    expect(
      await mapBounded(
        [],
        3,
        async () => 1,
        () => undefined,
      ),
    ).toEqual([]);
  });
});
