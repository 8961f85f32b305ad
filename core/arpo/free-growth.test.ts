/** Growth without a barrier: shares, beams, rates, and that nobody waits for another's tool. */
import { describe, expect, it } from 'vitest';
import { FunctionTools, tableWith } from '../../test/support/table-policy.ts';
import { roll, sum, TASKS } from './testing/table-rollouts.ts';

/** Every step calls a tool. */
const certain = tableWith({ '</think>': { '<search>': 1 } });

describe('slots', () => {
  it('are spent at the first results when every result branches', async () => {
    const settings = { groupSize: 7, initialRollouts: 4, alpha: 1, beta: 0, maxToolCalls: 2 };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const { trajectories, counts } of groups) {
      const parents = trajectories.slice(4).map(({ branch }) => branch?.parent);
      expect(new Set(parents).size).toBe(3);
      expect(trajectories.slice(4).every(({ branch }) => branch?.stepIndex === 2)).toBe(true);
      // 4 roots run two calls each; 3 forks take over one and run one.
      expect(counts.toolCallsExecuted + counts.toolCallsCached).toBe(11);
      expect(counts).toMatchObject({ toolCallsSaved: 3, branches: 3 });
    }
  });

  it('are shared evenly among roots, and below a branch between parent and siblings', async () => {
    const settings = { groupSize: 16, initialRollouts: 4, alpha: 1, beta: 0 };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const { trajectories } of groups) {
      for (const root of [0, 1, 2, 3]) {
        const tree = trajectories.filter((trajectory) => trajectory.root === root);
        expect(tree).toHaveLength(4);
        // One slot is spent at the first result; the two left are one of each side's.
        const depths = tree.flatMap(({ branch }) => branch?.stepIndex ?? []);
        expect(depths.sort()).toEqual([2, 4, 4]);
        const parents = tree.flatMap(({ branch }) => branch?.parent ?? []);
        expect(new Set(parents)).toEqual(new Set([root, tree[1]?.index]));
      }
    }
  });

  it('odd slots fall on any root, not on the first', async () => {
    const settings = { groupSize: 9, initialRollouts: 8, alpha: 1, beta: 0, maxToolCalls: 1 };
    const owners = new Set<number>();
    for (let seed = 0; seed < 20; seed++) {
      const { groups } = await roll({ settings, seed, sampler: { table: certain } });
      for (const { trajectories } of groups) owners.add(trajectories[8]?.root ?? -1);
    }
    expect([...owners].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('beamSize opens several siblings, never more than there are slots', async () => {
    const settings = { groupSize: 6, initialRollouts: 2, alpha: 1, beta: 0, beamSize: 4 };
    const { groups } = await roll({ settings, sampler: { table: certain } });
    for (const { trajectories, decisions } of groups) {
      const parents = trajectories.slice(2).map(({ branch }) => branch?.parent);
      expect([
        [0, 0, 0, 1],
        [1, 1, 1, 0],
      ]).toContainEqual(parents);
      expect(decisions.map(({ siblings }) => siblings).sort()).toEqual([1, 3]);
    }
  });

  it('of a root that ends early go to fresh roots, to no one else', async () => {
    // After the first step half of the roots answer; the others call to the end.
    const table = tableWith({
      '</user>|<think>': { a: 0.5, b: 0.5 },
      '<think>|a': { '</think>': 1 },
      'a|</think>': { '<answer>': 1 },
      '</result>|<think>': { b: 1 },
      'b|</think>': { '<search>': 1 },
    });
    const settings = { groupSize: 12, initialRollouts: 6, alpha: 1, beta: 0 };
    const { groups } = await roll({ settings, sampler: { table } });
    let early = 0;
    for (const { trajectories, counts } of groups) {
      const roots = trajectories.slice(0, 6);
      const calling = roots.filter(({ record }) => record.toolCalls > 0).length;
      early += 6 - calling;
      expect(counts).toMatchObject({ branches: calling, rootRollouts: 12 - calling });
    }
    expect(early).toBeGreaterThan(0);
  });
});

describe('decisions', () => {
  it('a threshold decides by dH alone', async () => {
    const settings = { groupSize: 8, initialRollouts: 4, branchThreshold: 0.5 };
    const { groups } = await roll({ settings });
    const decisions = groups.flatMap((group) => group.decisions);
    expect(decisions.some(({ siblings }) => siblings === 1)).toBe(true);
    for (const { deltaEntropy, signal, probability, siblings } of decisions) {
      expect(signal).toBe(deltaEntropy);
      expect(probability).toBeCloseTo(Math.min(1, Math.max(0, 0.5 + 2 * deltaEntropy)), 12);
      expect(siblings).toBe(probability > 0.5 ? 1 : 0);
    }
    // A sure policy never passes it: the group is filled by fresh roots.
    const sure = tableWith({
      '</result>|<think>': { b: 1 },
      '</user>|<think>': { a: 0.5, b: 0.5 },
    });
    const filled = await roll({ settings: { ...settings, beta: 5 }, sampler: { table: sure } });
    for (const { counts, decisions: asked } of filled.groups) {
      expect(counts).toMatchObject({ rootRollouts: 8, branches: 0 });
      expect(asked.length).toBeGreaterThan(0);
      for (const { deltaEntropy } of asked) expect(deltaEntropy).toBeLessThanOrEqual(0);
    }
  });

  it.each([
    ['paper', { branch: 'paper', alpha: 0.3, beta: 0 }],
    ['random', { branch: 'random', alpha: 0.3 }],
  ])('%s branches at its rate', async (_, rule) => {
    const settings = { groupSize: 16, initialRollouts: 8, ...rule };
    let asked = 0;
    let opened = 0;
    for (let seed = 0; seed < 30; seed++) {
      const { groups } = await roll({ settings, seed, sampler: { table: certain } });
      for (const { decisions } of groups) {
        // The first decision of each root: later ones are made only if it said no.
        const seen = new Set<number>();
        for (const { trajectory, siblings } of decisions) {
          if (trajectory >= 8 || seen.has(trajectory)) continue;
          seen.add(trajectory);
          asked++;
          opened += siblings;
        }
      }
    }
    // Standard error sqrt(.3 * .7 / 720) = .017; the bound is 4 of them.
    expect(asked).toBe(720);
    expect(Math.abs(opened / asked - 0.3)).toBeLessThan(0.07);
  });

  it('random ignores the entropy', async () => {
    const settings = { branch: 'random', alpha: 0.4, initialRollouts: 4 };
    const { groups } = await roll({ settings });
    const decisions = groups.flatMap((group) => group.decisions);
    expect(new Set(decisions.map(({ deltaEntropy }) => deltaEntropy)).size).toBeGreaterThan(1);
    expect(new Set(decisions.map(({ probability }) => probability))).toEqual(new Set([0.4]));
    expect(sum(decisions.map(({ siblings }) => siblings))).toBeGreaterThan(0);
  });
});

it('nobody waits for another: a group grows while one of its tools is not back', async () => {
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  let answered = 0;
  const tools = new FunctionTools({
    search: {
      // The first call comes back only when the whole rest of the group has been served.
      run: async (query) => {
        if (tools.calls.length === 1) await held;
        else answered++;
        return query;
      },
    },
    lookup: { run: (query) => query },
  });
  const settings = { groupSize: 8, initialRollouts: 4, cassette: false, maxToolCalls: 3 };
  const rolling = roll({ settings, tools, tasks: TASKS.slice(0, 1), sampler: { table: certain } });
  let before = -1;
  // Until a whole stretch of the event loop brings nothing new.
  while (before !== answered) {
    before = answered;
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  // Three other roots with three calls each, and what forks of theirs ran.
  expect(answered).toBeGreaterThanOrEqual(9);
  release();
  expect((await rolling).groups[0]?.trajectories).toHaveLength(8);
});
