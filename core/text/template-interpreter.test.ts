/**
 * Jinja as Python has it, where the library differs; test/parity/text.test.ts has whole templates.
 */
import { expect, test } from 'vitest';
import { ManualClock } from '../clock.ts';
import { parseTemplate, runTemplate } from './template-interpreter.ts';

const GUARD = '\ue000';

function run(source: string, variables: Record<string, unknown> = {}): string {
  const refuse = (message: unknown): never => {
    throw new RangeError(String(message));
  };
  const clock = new ManualClock(new Date(2026, 8, 5, 7, 3).getTime());
  return runTemplate(parseTemplate(source), variables, { refuse, clock, guard: GUARD });
}

test.each([
  ["{{ 'y' if '' != false else 'n' }}", 'y'],
  ["{{ 'y' if 0 == false and 1 == true and 1.0 == 1 else 'n' }}", 'y'],
  ["{{ 'y' if none == 0 or none == '' or '1' == 1 else 'n' }}", 'n'],
  ["{{ 'y' if [1, ['a']] == [1, ['a']] and {'a': 1} == {'a': 1} else 'n' }}", 'y'],
  ["{{ 'y' if {'a': 1} == {'a': 2} or [1] == [1, 2] else 'n' }}", 'n'],
  ["[{{ '\\n  a \\n'.strip('\\n') }}]", '[  a ]'],
  ["[{{ 'xxaxx'.lstrip('x') }}|{{ 'xxaxx'.rstrip('x') }}|{{ ' a '.strip() }}]", '[axx|xxa|a]'],
  ["[{{ 'a-^]b'.strip(']b^-') }}|{{ ' a'.strip('') }}]", '[a| a]'],
  ["[{{ {'a': 1}[['a']] is defined }}]", '[false]'],
  ['{% for i in range(2, 8, 3) %}{{ i }},{% endfor %}{{ range(3) | length }}', '2,5,3'],
  [
    "{{ strftime_now('%a %d %b %Y, %A %B %H:%M %% %q') }}",
    'Sat 05 Sep 2026, Saturday September 07:03 % %q',
  ],
  ['{{ strftime_now is defined }}', 'true'],
])('%s', (source, expected) => {
  expect(run(source)).toBe(expected);
});

test('white space is what Python strips', () => {
  const text = '\u0085\u001f \ufeffa\ufeff\u3000';
  expect(run('{{ text | trim }}|{{ text.strip() }}', { text })).toBe('\ufeffa\ufeff|\ufeffa\ufeff');
});

test('a length counts characters, not guards', () => {
  expect(run('{{ text | length }}', { text: `a${GUARD}😀` })).toBe('2');
});

test('a long run of blanks inside a text is stripped in time', () => {
  const text = `a${' '.repeat(200_000)}b`;
  expect(run('{{ (text | trim) == text }}', { text })).toBe('true');
});

test('raise_exception reaches the caller as its own error', () => {
  expect(() => run("{{ raise_exception('no ' + 'roles') }}")).toThrow(new RangeError('no roles'));
});
