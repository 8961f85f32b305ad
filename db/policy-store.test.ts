/** The policy registry: versions only grow, one is active, and the switch is one transaction. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { GateReport } from '../core/records.ts';
import type { Database } from './open.ts';
import { openDatabase } from './open.ts';
import type { NewPolicy } from './policy-store.ts';
import { PolicyStore } from './policy-store.ts';

let db: Database;
let store: PolicyStore;

beforeEach(() => {
  db = openDatabase(':memory:');
  store = new PolicyStore(db);
});
afterEach(() => {
  db.close();
});

const SCORE = { tasks: 10, accuracy: 0.5, formatErrors: 0, toolCallsPerTask: 1.5 };
const GATE: GateReport = {
  passed: true,
  reason: 'better',
  tasks: 10,
  base: { all: SCORE },
  candidate: { all: { ...SCORE, accuracy: 0.7 } },
  difference: { mean: 0.2, low: 0.1, high: 0.3 },
  tolerance: 0.02,
};

function policy(fields: Partial<NewPolicy> = {}): NewPolicy {
  return {
    parentVersion: null,
    kind: 'full',
    path: 'policies/1',
    sha256: 'a'.repeat(64),
    sourceRunId: null,
    status: 'candidate',
    evaluation: null,
    createdAt: 1,
    ...fields,
  };
}

describe('PolicyStore', () => {
  test('every field comes back, and versions count up', () => {
    expect(store.nextVersion()).toBe(1);
    const first = store.register(policy({ status: 'active' }));
    expect(first).toEqual({ ...policy({ status: 'active' }), version: 1 });
    const fields = policy({
      parentVersion: 1,
      kind: 'lora',
      sourceRunId: 'trn_1',
      evaluation: GATE,
    });
    expect(store.register(fields)).toEqual({ ...fields, version: 2 });
    expect(store.get(2)).toEqual({ ...fields, version: 2 });
    expect(store.register(policy({ version: 7 })).version).toBe(7);
    expect(store.nextVersion()).toBe(8);
    expect(() => store.register(policy({ version: 7 }))).toThrow(
      expect.objectContaining({ code: 'invalid_request', param: 'version' }),
    );
    expect(() => store.register(policy({ parentVersion: 99 }))).toThrow(
      expect.objectContaining({ code: 'policy_not_found' }),
    );
  });

  test('activation retires the one before; there is never a second active one', () => {
    expect(store.active()).toBeNull();
    store.register(policy({ status: 'active' }));
    store.register(policy({ parentVersion: 1 }));
    const { active, previous } = store.activate(2);
    expect([active.version, active.status, previous?.version]).toEqual([2, 'active', 1]);
    expect(store.get(1).status).toBe('retired');
    expect(store.active()?.version).toBe(2);
    expect(store.activate(2).active.version).toBe(2);
    store.register(policy({ status: 'active' }));
    expect(store.active()?.version).toBe(3);
    expect(() =>
      db.sqlite.prepare(`UPDATE policies SET status = 'active' WHERE version = 1`).run(),
    ).toThrow(/UNIQUE/);
  });

  test('a refused activation changes nothing', () => {
    store.register(policy({ status: 'active' }));
    store.register(policy({ status: 'rejected' }));
    expect(() => store.activate(2)).toThrow(
      expect.objectContaining({ code: 'policy_not_activatable' }),
    );
    expect(() => store.activate(9)).toThrow(expect.objectContaining({ code: 'policy_not_found' }));
    expect(store.active()?.version).toBe(1);
  });

  test('a rollback goes to the parent', () => {
    expect(() => store.rollbackTarget()).toThrow(
      expect.objectContaining({ code: 'nothing_to_roll_back' }),
    );
    store.register(policy({ status: 'active' }));
    expect(() => store.rollbackTarget()).toThrow(
      expect.objectContaining({ code: 'nothing_to_roll_back' }),
    );
    store.register(policy({ parentVersion: 1, status: 'active' }));
    expect(store.rollbackTarget().version).toBe(1);
  });

  test('the verdict of the gate is kept', () => {
    store.register(policy());
    expect(store.setEvaluation(1, GATE).evaluation).toEqual(GATE);
    expect(store.setStatus(1, 'rejected').status).toBe('rejected');
    expect(() => store.setStatus(5, 'retired')).toThrow(
      expect.objectContaining({ code: 'policy_not_found' }),
    );
  });

  test('pages are newest first, by number and not by text', () => {
    for (let i = 0; i < 12; i++) store.register(policy());
    const first = store.list({ limit: 5 });
    const second = store.list({ limit: 20, cursor: first.nextCursor ?? '' });
    expect(first.items.map(({ version }) => version)).toEqual([12, 11, 10, 9, 8]);
    expect(second.items.map(({ version }) => version)).toEqual([7, 6, 5, 4, 3, 2, 1]);
    expect(second.nextCursor).toBeNull();
  });
});
