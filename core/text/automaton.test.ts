/** Tests of the depths of states against the definition, and of the time that long chains take. */
import { expect, test } from 'vitest';
import { Prng } from '../prng.ts';
import { Automaton } from './automaton.ts';

/** The definition as it is read, over all states until nothing changes. */
function depthsByDefinition({ states }: Automaton): number[] {
  const depths = states.map(() => Infinity);
  const of = (state: number) => depths[state] as number;
  for (let changed = true; changed;) {
    changed = false;
    for (const [state, { bytes, tokens, empty, calls, end }] of states.entries()) {
      const depth = Math.min(
        end ? 0 : Infinity,
        ...[...bytes, ...tokens].map(({ to }) => of(to)),
        ...empty.map(of),
        ...calls.map(({ rule, to }) => Math.max(1 + of(rule), of(to))),
      );
      changed ||= depth < of(state);
      depths[state] = Math.min(depth, of(state));
    }
  }
  return depths;
}

/** Mostly calls, so that depths differ; edges lead forwards and back. */
function randomAutomaton(prng: Prng): Automaton {
  const automaton = new Automaton();
  const states = Array.from({ length: 2 + prng.below(40) }, () => automaton.state());
  const ends = states.filter(() => prng.below(12) === 0);
  for (const state of ends) automaton.endAt(state);
  for (let edges = prng.below(3 * states.length); edges > 0; edges--) {
    const [from, to] = [prng.pick(states), prng.pick(states)];
    const kind = prng.below(7);
    if (kind === 0) automaton.range(from, 97, 122, to);
    else if (kind === 1) automaton.token(from, 5, to);
    else if (kind === 2) automaton.empty(from, to);
    else automaton.call(from, prng.pick(states), prng.below(2) === 0 ? prng.pick(ends) : to);
  }
  return automaton;
}

test('depths are those of the definition on 500 random automata', () => {
  const prng = new Prng(11);
  const seen = new Set<number>();
  for (let i = 0; i < 500; i++) {
    const automaton = randomAutomaton(prng);
    const depths = automaton.depths();
    expect(depths, `automaton ${i}`).toEqual(depthsByDefinition(automaton));
    for (const depth of depths) seen.add(depth);
  }
  for (const depth of [0, 1, 2, 3, 4, Infinity]) expect(seen).toContain(depth);
});

test('chains of 20,000 links take no time that shows, in either direction', () => {
  const automaton = new Automaton();
  const states = Array.from({ length: 40_000 }, () => automaton.state());
  automaton.endAt(0);
  automaton.endAt(39_999);
  for (let i = 1; i < 20_000; i++) {
    automaton.empty(i, i - 1);
    automaton.call(20_000 + i - 1, 20_000 + i, 39_999);
  }
  const startedAt = performance.now();
  const depths = automaton.depths();
  // A pass over all states for each link takes 10 s and more.
  expect(performance.now() - startedAt).toBeLessThan(1_000);
  expect(depths).toEqual(states.map((state) => (state < 20_000 ? 0 : 39_999 - state)));
});
