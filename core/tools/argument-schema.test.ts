/** Tests of compiling schemas: once each, in turns, and those that take long not to their end. */
import { expect, test } from 'vitest';
import { compileAll, compileInTurns } from './argument-schema.ts';

const { signal } = new AbortController();

const small = (i: number) => ({
  name: `small${i}`,
  parameters: { type: 'object', properties: { [`a${i}`]: { type: 'string' } }, required: ['b'] },
});

/** Takes ten seconds. */
const harmful = (i: number) => ({
  name: `harmful${i}`,
  parameters: {
    type: 'object',
    dependentRequired: { a: Array.from({ length: 9_000 }, (_, k) => `a${i}_${k}`) },
  },
});

const messages = (all: readonly { check: unknown }[]): string[] =>
  all.map(({ check }) => (check instanceof Error ? check.message : 'compiled'));

test('others get their turn while many are compiled', async () => {
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const all = await compileInTurns(
    Array.from({ length: 512 }, (_, i) => small(i)),
    [],
    { signal },
  );
  clearInterval(timer);
  expect(turns).toBeGreaterThan(2);
  expect(new Set(messages(all))).toEqual(new Set(['compiled']));
});

test('a schema that is known by its text is not compiled again, a fault is no such knowledge', async () => {
  const broken = { name: 'broken', parameters: { type: 'nothing' } };
  const before = compileAll([small(0), small(1), broken]);
  const tools = [small(1), { ...small(2), name: 'small0' }, structuredClone(small(0)), broken];
  for (const after of [
    compileAll(tools, before),
    await compileInTurns(tools, before, { signal }),
  ]) {
    expect(after[0]?.check).toBe(before[1]?.check);
    expect(after[2]?.check).toBe(before[0]?.check);
    expect(before.map(({ check }) => check)).not.toContain(after[1]?.check);
    expect(after[3]?.check).toBeInstanceOf(Error);
    expect(after[3]?.check).not.toBe(before[2]?.check);
  }
});

test('one that takes too long is ended, and after many of them what is known is left', async () => {
  const startedAt = performance.now();
  const known = compileAll([small(0)]);
  const tools = [...[0, 1, 2, 3].map(harmful), small(1), small(0)];
  const all = await compileInTurns(tools, known, { signal, schemaMs: 50, allMs: 120 });
  expect(performance.now() - startedAt).toBeLessThan(5_000);
  const [first, , , fourth, fifth, sixth] = messages(all);
  expect(first).toBe('took longer than 50 ms to compile');
  expect(fourth).toBe('not compiled: 120 ms were spent');
  expect(fifth).toBe(fourth);
  expect(sixth).toBe('compiled');
});

test('an abort ends it', async () => {
  const controller = new AbortController();
  const tools = [0, 1].map(harmful);
  const compiling = compileInTurns(tools, [], { signal: controller.signal, schemaMs: 50 });
  controller.abort();
  await expect(compiling).rejects.toMatchObject({ name: 'AbortError' });
});
