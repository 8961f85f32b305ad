/** An export that is given up before its first bytes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openDatabase } from '../db/open.ts';
import { exportStream } from './export-stream.ts';

test.each([true, false])('its start fails, compressed: %s', async (compressed) => {
  const folder = mkdtempSync(join(tmpdir(), 'ramify-export-'));
  const path = join(folder, 'ramify.db');
  const db = openDatabase(path);
  const client = new AbortController();
  const started = exportStream({ path, filter: {}, compressed }, client.signal);
  client.abort();
  await expect(started).rejects.toMatchObject({ code: 'request_cancelled' });
  db.sqlite.close();
  rmSync(folder, { recursive: true });
});
