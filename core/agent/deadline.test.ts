/** A deadline tells time from its parent's abort, and leaves nothing behind. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Deadline } from './deadline.ts';

afterEach(() => vi.useRealTimers());

describe('Deadline', () => {
  it('expires after its time', () => {
    vi.useFakeTimers();
    const deadline = new Deadline(undefined, 50);
    vi.advanceTimersByTime(49);
    expect(deadline.signal.aborted).toBe(false);
    vi.advanceTimersByTime(1);
    expect(deadline.signal.aborted).toBe(true);
    expect(deadline.expired).toBe(true);
  });

  it('follows its parent without having expired', () => {
    vi.useFakeTimers();
    const parent = new AbortController();
    const deadline = new Deadline(parent.signal, 50);
    parent.abort();
    expect(deadline.signal.aborted).toBe(true);
    expect(deadline.expired).toBe(false);
    expect(new Deadline(parent.signal, 50).signal.aborted).toBe(true);
  });

  it('keeps the first failure as the cause', () => {
    const deadline = new Deadline(undefined, 50);
    expect(deadline.failure).toBeNull();
    deadline.fail('first');
    deadline.fail('second');
    expect(deadline).toMatchObject({ failure: { thrown: 'first' }, expired: false });
    expect(deadline.signal.aborted).toBe(true);
    deadline.close();
  });

  it('closed, it holds no timer and does not hear the parent', () => {
    vi.useFakeTimers();
    const parent = new AbortController();
    const deadline = new Deadline(parent.signal, 50);
    deadline.close();
    expect(vi.getTimerCount()).toBe(0);
    parent.abort();
    expect(deadline.signal.aborted).toBe(false);
  });
});
