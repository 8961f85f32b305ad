/**
 * Packed rows against flat rows, which are the definition: the same loss and gradients on random
 * forests, and what a token may depend on.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { Prng } from '../prng.ts';
import {
  compareForms,
  forestFor,
  gradientsApart,
  LOSSES,
  PACKED_KINDS,
  sessionOf,
} from './testing/packed-comparison.ts';
import type { LossSettings } from './types.ts';

const PPO = LOSSES[0] as LossSettings;

it.each(PACKED_KINDS)(
  'loss and gradients are the flat ones: $kind, adapter: $lora',
  async (kind) => {
    const prng = new Prng(41);
    const session = sessionOf(kind, prng);
    for (const loss of LOSSES) {
      for (let trial = 0; trial < 5; trial++) {
        const apart = await compareForms(session, forestFor(session, prng), loss);
        expect(apart.loss, `${loss.clip} ${trial}`).toBeLessThan(1e-6);
        expect(apart.gradient, `${loss.clip} ${trial}`).toBeLessThan(1e-4);
      }
    }
    await session.dispose();
  },
);

describe('a forest', () => {
  const session = sessionOf({ kind: 'qwen2', lora: false }, new Prng(3));
  afterAll(() => session.dispose());
  const row = (...tokens: number[]) => Uint32Array.from(tokens);

  it('is the same in any order of its rows', async () => {
    const prng = new Prng(5);
    for (let trial = 0; trial < 10; trial++) {
      const rows = forestFor(session, prng);
      const before = await session.lossAndGradients(rows, PPO, 'packed');
      const after = await session.lossAndGradients(rows.toReversed(), PPO, 'packed');
      expect(after.loss).toBeCloseTo(before.loss, 6);
      expect(gradientsApart(after.gradients, before.gradients)).toBeLessThan(1e-5);
      before.logprobs.reverse().forEach((logprobs, i) => {
        logprobs.forEach((logp, t) => expect(after.logprobs[i]?.[t]).toBeCloseTo(logp, 5));
      });
    }
  });

  it('hides branches from each other: another sibling changes nothing', async () => {
    const rows = [row(1, 2, 3, 4, 5, 6), row(1, 2, 3, 9, 8, 7), row(4, 4, 4, 2)];
    const before = await session.score(rows, 'packed');
    const after = await session.score([rows[0]!, row(1, 2, 3, 9, 12, 30), rows[2]!], 'packed');
    for (const i of [0, 2]) {
      before.logprobs[i]?.forEach((logp, t) => {
        expect(after.logprobs[i]?.[t]).toBeCloseTo(logp, 6);
        expect(after.entropies[i]?.[t]).toBeCloseTo(before.entropies[i]?.[t] ?? NaN, 6);
      });
    }
  });

  it('shows ancestors to all descendants: another first token changes everything', async () => {
    const rows = [row(1, 2, 3, 4, 5, 6), row(1, 2, 3, 9, 8, 7)];
    const changed = rows.map((tokens) => tokens.with(0, 11));
    const before = await session.score(rows, 'packed');
    const after = await session.score(changed, 'packed');
    before.logprobs.forEach((logprobs, i) => {
      logprobs.forEach((logp, t) => {
        if (t === 0) return;
        expect(Math.abs((after.logprobs[i]?.[t] ?? NaN) - logp), `${i} ${t}`).toBeGreaterThan(1e-6);
      });
    });
  });

  it('forwards a shared prefix once, and nothing behind the last trained token', async () => {
    const trained = (tokens: Uint32Array, from: number, to: number) => {
      const values = tokens.length;
      return {
        tokens,
        weights: Float32Array.from({ length: values }, (_, t) => Number(t >= from && t < to)),
        advantages: new Float32Array(values).fill(1),
        oldLogprobs: new Float32Array(values).fill(-3),
      };
    };
    const rows = [trained(row(1, 2, 3, 4, 5, 6), 3, 6), trained(row(1, 2, 3, 9, 8, 7), 3, 5)];
    // 1 2 3, then 4 5, then 9: the last trained tokens are only targets.
    expect((await session.lossAndGradients(rows, PPO, 'packed')).tokensForwarded).toBe(6);
    expect((await session.lossAndGradients(rows, PPO, 'flat')).tokensForwarded).toBe(10);
    const { logprobs } = await session.lossAndGradients(rows, PPO, 'packed');
    expect(logprobs[1]?.findLastIndex((logp) => logp !== 0)).toBe(4);
  });

  it('scores every token as flat rows do, rows of one token too', async () => {
    const rows = [row(5), row(1, 2, 3), row(1, 2, 3), row(1, 2)];
    const [flat, packed] = [await session.score(rows), await session.score(rows, 'packed')];
    flat.logprobs.forEach((logprobs, i) => {
      expect(packed.logprobs[i]?.length).toBe(rows[i]?.length);
      logprobs.forEach((logp, t) => expect(packed.logprobs[i]?.[t]).toBeCloseTo(logp, 5));
    });
  });
});
