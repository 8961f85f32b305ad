/** Places of all and shares of keys. */
import { expect, test } from 'vitest';
import { KeyPlaces } from './key-places.ts';

const places = (): KeyPlaces => new KeyPlaces({ what: 'replays', max: 4, keyMax: 2 });

test('a key has its share, others have theirs, all together no more than there are', () => {
  const all = places();
  const leave = all.enter('a');
  all.enter('a');
  expect(() => all.enter('a')).toThrow(
    expect.objectContaining({
      code: 'rate_limit_exceeded',
      message: 'the key has 2 replays under way, as many as it may have of 4',
    }),
  );
  all.enter('b');
  all.enter('b');
  const full = { code: 'queue_full', message: '4 replays are under way; no more fit' };
  expect(() => all.enter('c')).toThrow(expect.objectContaining(full));
  leave();
  all.enter('a');
  expect(() => all.enter('c')).toThrow(expect.objectContaining(full));
});

test('who has no key may have all', () => {
  const all = places();
  for (let i = 0; i < 4; i++) all.enter(null);
  expect(() => all.enter(null)).toThrow(expect.objectContaining({ code: 'queue_full' }));
});

test('what was let in before is counted and never refused', () => {
  const all = places();
  const leaves = Array.from({ length: 5 }, () => all.take('a'));
  expect(() => all.enter('b')).toThrow(expect.objectContaining({ code: 'queue_full' }));
  for (const leave of leaves.slice(2)) leave();
  expect(() => all.enter('a')).toThrow(expect.objectContaining({ code: 'rate_limit_exceeded' }));
  all.enter('b');
});
