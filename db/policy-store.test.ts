/** The policy registry: versions only grow, one is active, and the switch is one transaction. */
import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { GateReport, PolicyDecision } from '../core/records.ts';
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

function decision(fields: Partial<PolicyDecision> = {}): PolicyDecision {
  return {
    id: 'dec_1',
    kind: 'gate_passed',
    version: 1,
    otherVersion: null,
    cause: 'gate',
    reason: 'why',
    figures: {},
    trainingRunId: null,
    createdAt: 1,
    ...fields,
  };
}

describe('PolicyStore', () => {
  test('every field comes back, and versions count up', () => {
    expect(store.nextVersion()).toBe(1);
    const first = store.register(policy({ status: 'active' }));
    expect(first).toEqual({
      ...policy({ status: 'active' }),
      version: 1,
      removedAt: null,
    });
    const fields = policy({
      parentVersion: 1,
      kind: 'lora',
      sourceRunId: 'trn_1',
      evaluation: GATE,
    });
    expect(store.register(fields)).toEqual({ ...fields, version: 2, removedAt: null });
    expect(store.get(2)).toEqual({ ...fields, version: 2, removedAt: null });
    expect(store.register(policy({ version: 7 })).version).toBe(7);
    expect(store.nextVersion()).toBe(8);
    expect(() => store.register(policy({ version: 7 }))).toThrow(
      expect.objectContaining({ code: 'invalid_request', param: 'version' }),
    );
    expect(() => store.register(policy({ parentVersion: 99 }))).toThrow(
      expect.objectContaining({ code: 'policy_not_found' }),
    );
  });

  test('a decision and its changes of status are one write; there is never a second active one', () => {
    expect(store.active()).toBeNull();
    store.register(policy({ status: 'active' }));
    store.register(policy({ parentVersion: 1 }));
    const row = decision({ kind: 'activated', version: 2, otherVersion: 1 });
    // In either order: who steps down goes first.
    store.decide(row, [
      [2, 'active'],
      [1, 'retired'],
    ]);
    expect([store.active()?.version, store.get(1).status]).toEqual([2, 'retired']);
    expect(store.decisions.list().items).toEqual([row]);
    expect(() => store.decide({ ...row, id: 'dec_2' }, [[1, 'active']])).toThrow(
      /UNIQUE|insert|update/i,
    );
    expect(() => store.decide({ ...row, id: 'dec_3' }, [[9, 'retired']])).toThrow(
      expect.objectContaining({ code: 'policy_not_found' }),
    );
    expect(() => store.decide(row, [[2, 'retired']])).toThrow();
    expect([store.active()?.version, store.get(1).status]).toEqual([2, 'retired']);
    expect(store.decisions.list().items).toHaveLength(1);
  });

  test('one canary at most, beside the active one', () => {
    store.register(policy({ status: 'active' }));
    store.register(policy({ parentVersion: 1 }));
    store.register(policy({ parentVersion: 1 }));
    expect(store.canary()).toBeNull();
    store.decide(decision({ kind: 'canary_started', version: 2 }), [[2, 'canary']]);
    expect([store.canary()?.version, store.active()?.version]).toEqual([2, 1]);
    const second = decision({ id: 'dec_2', kind: 'canary_started', version: 3 });
    expect(() => store.decide(second, [[3, 'canary']])).toThrow();
    expect(store.canary()?.version).toBe(2);
  });

  test('a rollback goes to the version that was replaced, else to the parent', () => {
    const nothing = expect.objectContaining({ code: 'nothing_to_roll_back' });
    expect(() => store.rollbackTarget()).toThrow(nothing);
    store.register(policy({ status: 'active' }));
    expect(() => store.rollbackTarget()).toThrow(nothing);
    store.register(policy({ parentVersion: 1, status: 'active' }));
    expect(store.rollbackTarget().version).toBe(1);
    store.register(policy({ parentVersion: 1 }));
    store.decide(decision({ kind: 'activated', version: 3, otherVersion: 2 }), [
      [2, 'retired'],
      [3, 'active'],
    ]);
    expect(store.rollbackTarget().version).toBe(2);
    store.decide(decision({ id: 'dec_2', kind: 'rolled_back', version: 2 }), [[2, 'rolled_back']]);
    expect(store.rollbackTarget().version).toBe(1);
    store.decide(decision({ id: 'dec_3', kind: 'rolled_back', version: 1 }), [[1, 'rolled_back']]);
    expect(() => store.rollbackTarget()).toThrow(nothing);
  });

  test('decisions by version and run, newest first, with their figures', () => {
    for (let i = 1; i <= 3; i++) store.register(policy());
    for (let i = 1; i <= 9; i++) {
      const fields = { id: `dec_${i}`, version: (i % 3) + 1, figures: { gate: GATE } };
      store.decide(decision({ ...fields, trainingRunId: i < 5 ? 'trn_1' : null }));
    }
    const ids = (page: { items: { id: string }[] }): string[] => page.items.map(({ id }) => id);
    const first = store.decisions.list({}, { limit: 4 });
    expect(ids(first)).toEqual(['dec_9', 'dec_8', 'dec_7', 'dec_6']);
    const next = store.decisions.list({}, { limit: 4, cursor: first.nextCursor ?? '' });
    expect(ids(next)).toEqual(['dec_5', 'dec_4', 'dec_3', 'dec_2']);
    expect(ids(store.decisions.list({ version: 1 }))).toEqual(['dec_9', 'dec_6', 'dec_3']);
    expect(ids(store.decisions.list({ trainingRunId: 'trn_1' }))).toHaveLength(4);
    expect(store.decisions.newest(1, ['gate_passed'])?.figures).toEqual({ gate: GATE });
    expect(store.decisions.newest(1, ['activated'])).toBeNull();
  });

  test('removed files are marked with the decision, and leave the list of those that are there', () => {
    for (let i = 1; i <= 2; i++) store.register(policy());
    store.markRemoved(decision({ kind: 'removed', version: 1, createdAt: 7 }));
    expect(store.get(1).removedAt).toBe(7);
    expect(store.withFiles().map(({ version }) => version)).toEqual([2]);
  });

  test('paths in the data folder move with it; others stay', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ramify-policies-'));
    try {
      const first = openDatabase(join(folder, 'a', 'ramify.db'));
      const inside = join(folder, 'a', 'policies', '1');
      const before = new PolicyStore(first);
      expect(before.register(policy({ path: inside })).path).toBe(inside);
      before.register(policy({ path: join(folder, 'elsewhere') }));
      first.close();
      renameSync(join(folder, 'a'), join(folder, 'b'));
      const second = openDatabase(join(folder, 'b', 'ramify.db'));
      const after = new PolicyStore(second);
      expect(after.get(1).path).toBe(join(folder, 'b', 'policies', '1'));
      expect(after.get(2).path).toBe(join(folder, 'elsewhere'));
      expect(after.setPath(2, join(folder, 'b', 'policies', '2')).path).toBe(
        join(folder, 'b', 'policies', '2'),
      );
      second.close();
    } finally {
      rmSync(folder, { recursive: true });
    }
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
