/**
 * Durability: a process that is killed while it writes has lost nothing that it acknowledged, and
 * left nothing half. SIGKILL proves this against a crash of the process; against a power cut the
 * proof is SQLite's own, given WAL with synchronous=FULL (db/open.test.ts checks the settings).
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, expect, test } from 'vitest';
import { must } from '../core/assert.ts';
import { builtModule } from '../core/paths.ts';
import { Prng, freshSeed } from '../core/prng.ts';
import { chain } from '../test/fixtures/random-records.ts';
import { openDatabase } from './open.ts';
import { openStores } from './stores.ts';

const KILLS = 10;
const folder = mkdtempSync(join(tmpdir(), 'ramify-durability-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the writer on the file, kills it, and returns the ids that it had acknowledged. */
async function writeUntilKilled(file: string, seed: number, lifeMs: number): Promise<string[]> {
  const program = builtModule(import.meta.url, '../test/fixtures/append-until-killed.ts');
  const child = spawn(process.execPath, [program.pathname, file, String(seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let printed = '';
  const ready = new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (piece: Buffer) => {
      printed += piece.toString();
      if (printed.startsWith('ready\n')) resolve();
    });
    child.on('exit', (code) => reject(new Error(`the writer ended by itself with ${code}`)));
  });
  const closed = once(child, 'close');
  await ready;
  await sleep(lifeMs);
  child.kill('SIGKILL');
  await closed;
  // The last line may be cut; an id counts when its newline came out.
  return printed.split('\n').slice(1, -1);
}

test(`${KILLS} kills at random moments lose no acknowledged answer`, async () => {
  const file = join(folder, 'ramify.db');
  const firstSeed = freshSeed();
  const moments = new Prng(firstSeed);
  let acknowledged = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const seed = firstSeed + kill;
    const ids = await writeUntilKilled(file, seed, 5 + moments.below(150));
    acknowledged += ids.length;
    const stores = openStores(openDatabase(file));
    for (const id of ids) {
      const context = `answer ${id}, first seed ${firstSeed}`;
      const { trajectory, steps } = stores.trajectories.get(id);
      const [, writer, index] = id.slice('traj-'.length).split('-').map(Number);
      const prng = new Prng(seed * 16 + must(writer, 'writer'));
      for (let i = 0; i < must(index, 'index'); i++) chain(prng, 'skipped', 4);
      expect(steps, context).toEqual(chain(prng, id.slice('traj-'.length), 4));
      expect(trajectory.leafStepId, context).toBe(must(steps[3], 'leaf').id);
    }
    stores.close();
    // What was not acknowledged is there whole or not at all: no leaf without its trajectory.
    expect(countStrays(file), `first seed ${firstSeed}`).toEqual({ strays: 0, integrity: 'ok' });
  }
  expect(acknowledged).toBeGreaterThan(KILLS);
});

/**
 * Steps that lie on no trajectory's path (a batch is atomic, so there are none), and SQLite's
 * check.
 */
function countStrays(file: string): { strays: number; integrity: unknown } {
  const db = openDatabase(file);
  const strays = db.sqlite
    .prepare(
      `SELECT count(*) FROM steps WHERE id NOT IN (SELECT parent_id FROM steps WHERE parent_id
         IS NOT NULL) AND id NOT IN (SELECT leaf_step_id FROM trajectories)`,
    )
    .pluck()
    .get() as number;
  const integrity = db.sqlite.pragma('integrity_check', { simple: true });
  db.close();
  return { strays, integrity };
}
