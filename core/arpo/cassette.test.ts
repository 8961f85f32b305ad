/** The cassette of a group: what runs once, what runs again, and what is never kept. */
import { describe, expect, it } from 'vitest';
import { FunctionTools } from '../../test/support/table-policy.ts';
import { AppError } from '../errors.ts';
import { Cassette } from './cassette.ts';
import { roll, sum, shapeOf, TurningTools } from './testing/table-rollouts.ts';

const call = (query: unknown): string => JSON.stringify({ query });

function counting(run: (query: string) => string | Promise<string> = (query) => query) {
  const tools = new FunctionTools({ search: { run }, write: { run, effects: 'writes' } });
  return { tools, cassette: new Cassette(tools) };
}

describe('a call', () => {
  it('runs once; the next ones are served from the record', async () => {
    const { tools, cassette } = counting();
    const first = await cassette.call('search', call('a'));
    const second = await cassette.call('search', call('a'));
    expect(first).toMatchObject({ result: 'a', served: 'live' });
    expect(second).toEqual({ ...first, served: 'recorded', durationMs: 0 });
    expect(await cassette.call('search', call('b'))).toMatchObject({ result: 'b', served: 'live' });
    expect(tools.calls).toHaveLength(2);
  });

  it('is the same whatever its spaces and the order of its keys, at any depth', async () => {
    const { tools, cassette } = counting(() => 'x');
    await cassette.call('search', '{"query":{"a":[1,{"b":2,"c":3}],"d":null}}');
    await cassette.call('search', '{ "query": {"d": null, "a": [1.0, {"c": 3, "b": 2}]} }');
    expect(tools.calls).toHaveLength(1);
    for (const other of [
      '{"query":{"a":[1,{"b":2,"c":4}],"d":null}}',
      '{"query":{"a":[{"b":2,"c":3},1],"d":null}}',
      '{"query":{"pairs":[["a",1]]}}',
      '{"query":{"a":1}}',
    ]) {
      expect(await cassette.call('search', other)).toMatchObject({ served: 'live' });
    }
  });

  it('waits for one that runs already', async () => {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    const { tools, cassette } = counting(async (query) => {
      await held;
      return query;
    });
    const both = Promise.all([
      cassette.call('search', call('a')),
      cassette.call('search', call('a')),
    ]);
    release();
    expect((await both).map(({ served, result }) => [served, result])).toEqual([
      ['live', 'a'],
      ['recorded', 'a'],
    ]);
    expect(tools.calls).toHaveLength(1);
  });

  it('of a tool with effects runs each time', async () => {
    const { tools, cassette } = counting();
    for (let i = 0; i < 3; i++) {
      expect(await cassette.call('write', call('a'))).toMatchObject({ served: 'live' });
    }
    expect(tools.calls).toHaveLength(3);
  });

  it('that failed for good is kept, one that another try may mend is not', async () => {
    for (const [code, runs] of [
      ['tool_failed', 1],
      ['tool_timeout', 2],
      ['queue_full', 2],
    ] as const) {
      const { tools, cassette } = counting(() => {
        throw new AppError(code, 'no');
      });
      for (let i = 0; i < 2; i++) {
        expect(await cassette.call('search', call('a'))).toMatchObject({ error: code });
      }
      expect(tools.calls).toHaveLength(runs);
    }
  });

  it('with arguments that are no JSON, or nest too deep, is told apart by its text', async () => {
    const { tools, cassette } = counting(() => 'x');
    const deep = '['.repeat(50_000) + ']'.repeat(50_000);
    for (const text of ['{"query"', '{"query" ', deep]) {
      await cassette.call('search', text);
      await cassette.call('search', text);
    }
    expect(tools.calls).toHaveLength(3);
  });

  it('can be recorded from a log', async () => {
    const { tools, cassette } = counting();
    const outcome = { result: 'logged', error: null, durationMs: 7, effects: 'none' } as const;
    cassette.record({ name: 'search', arguments: call('a') }, { ...outcome, served: 'live' });
    expect(await cassette.call('search', call('a'))).toMatchObject({
      result: 'logged',
      served: 'recorded',
    });
    expect(tools.calls).toHaveLength(0);
  });
});

describe('a group', () => {
  it.each([true, false])(
    'calls no tool that got effects while it was sampled (cassette %s)',
    async (cassette) => {
      const tools = new TurningTools();
      const { groups, error } = await roll({ tools, settings: { branch: 'none', cassette } });
      expect(error).toBeNull();
      expect(tools.calls).toHaveLength(1);
      const steps = groups.flatMap(({ trajectories }) => trajectories.flatMap((t) => t.steps));
      const refused = steps.filter(({ toolCall }) => toolCall?.error === 'tool_failed');
      expect(refused.length).toBeGreaterThan(0);
      expect(refused[0]?.toolCall?.result).toContain('has effects');
    },
  );

  it('runs each call once, counts the others apart, and is the same forest', async () => {
    const [on, off] = await Promise.all([
      roll({ settings: { branch: 'none' } }),
      roll({ settings: { branch: 'none', cassette: false } }),
    ]);
    expect(on.groups.map(shapeOf)).toEqual(off.groups.map(shapeOf));
    on.groups.forEach(({ counts, trajectories }, g) => {
      const calls = trajectories.flatMap(({ steps }) => steps.flatMap((s) => s.toolCall ?? []));
      const unique = new Set(calls.map((made) => `${made.name} ${made.arguments}`));
      expect(counts.toolCallsExecuted).toBe(unique.size);
      expect(counts.toolCallsExecuted).toBe(calls.filter((c) => c.served === 'live').length);
      const without = off.groups[g]?.counts;
      expect(without?.toolCallsCached).toBe(0);
      expect(counts.toolCallsExecuted + counts.toolCallsCached).toBe(without?.toolCallsExecuted);
    });
    // Groups share nothing: three groups, three times the same calls.
    expect(on.tools.calls).toHaveLength(
      sum(on.groups.map(({ counts }) => counts.toolCallsExecuted)),
    );
    expect(on.tools.calls.length).toBeLessThan(off.tools.calls.length);
  });
});
