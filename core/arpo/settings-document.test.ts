/** docs/arpo.md, section 9: every setting that there is, with the default that it has. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../paths.ts';
import { parseSettings, SPECS } from './settings.ts';

const text = readFileSync(join(packageRoot, 'docs', 'arpo.md'), 'utf8');
const section = text.slice(text.indexOf('## 9. Settings'));
/** The first word in code of the second column: its default in the simplest combination. */
const rows = [...section.matchAll(/^\| `(\w+)` +\| ([^|]*)\|/gm)].map(
  ([, name = '', cell = '']): [string, string | null] => [name, /`(.*?)`/.exec(cell)?.[1] ?? null],
);

/** Defaults, each from the first of some combinations in which it is in force. */
function defaults(): Map<string, unknown> {
  const found = new Map<string, unknown>();
  for (const [overrides, source] of [
    [{}, 'tasks'],
    [{}, 'both'],
    [{ branch: 'released-code' }, 'tasks'],
    [{ branch: 'deferred' }, 'tasks'],
    [{ training: 'lora' }, 'tasks'],
    [{ dynamicSampling: true, curriculum: 'solved-share' }, 'tasks'],
    [{ earlyStop: 'plateau' }, 'tasks'],
  ] as const) {
    for (const [name, value] of Object.entries(parseSettings('arpo', overrides, 'full', source))) {
      if (!found.has(name)) found.set(name, value);
    }
  }
  return found;
}

it('names every setting once', () => {
  expect(rows.map(([name]) => name).sort()).toEqual(Object.keys(SPECS).sort());
});

it('tells their defaults', () => {
  const inForce = defaults();
  const shown = (value: unknown): string =>
    typeof value === 'string' ? value : JSON.stringify(value).replaceAll(',', ', ');
  const expected = Object.keys(SPECS).map((name) => [
    name,
    inForce.has(name) ? shown(inForce.get(name)) : null,
  ]);
  expect(Object.fromEntries(rows)).toEqual(Object.fromEntries(expected));
  // Only a target has none.
  expect(expected.filter(([, value]) => value === null)).toEqual([['targetReward', null]]);
});
