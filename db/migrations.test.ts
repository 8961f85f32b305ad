/**
 * Migrations: replaying them on an empty file gives exactly db/schema.ts, their order only rises,
 * and those that were released are frozen. drizzle itself notices none of these (it looks only at
 * the newest applied time), so the tests do.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateSQLiteDrizzleJson, generateSQLiteMigration } from 'drizzle-kit/api';
import { readMigrationFiles } from 'drizzle-orm/migrator';
import { getTableConfig, SQLiteTable } from 'drizzle-orm/sqlite-core';
import { expect, test } from 'vitest';
import { migrationsFolder, openDatabase } from './open.ts';
import * as schema from './schema.ts';

/** Hash of each migration, oldest first. Append a line for a new one; never change a line. */
const FROZEN = [
  '0fc67b3699e7f0b4db2e5446a166adedecf79f31a82b7ad062decd25dbd72960',
  'b4431f75e5555806b47f806a13da6caa37c1687a7c8409b1c6812fdb5d17afe5',
  '0a080dbe74b9922ef1187b78009cf7a588a2b07d3de88e61e2b15f33fabc73c4',
  '38e2b86214a9cee6ef5ca54a67c09ac65185ae447f69aee617337e3acd94af65',
  'cdfdad43a9a345e353437fdde7f9469ed6bfc056eeb6c6eef725f4de9728e5e9',
  '55fad5d8a8204f3e17e78d1f4d6273ca0269212efd2fb42609e628668620d4e4',
  '3363284e152ef429c16ee45e348a1f842c4267ddb01dfa396682894a6125ff0d',
  '29880dd8ec16761441dd8be90806b15f16890025071301b6da5eee3936ec2d99',
  '037ba7d293e6979f0054dd218f5539c04c0a4edb92950e080b9a5c61de651761',
  'abd27f9b7b3a95883526339eab34557a5d4b2d23abc7870518815271d8a4abe2',
  '185edab0b1db6ba7c10ea1831f5b54d27d64b99fef444d656c11545648ef3d4d',
  '04273a0a00fdd8ab8102bfd3f0540f66c5923f69848aeb5ca058cde1e6c29e5a',
  '0a65d00e1fdc76ba5984c1a574b3b27c95b366a5e905324488cee5bc228fa946',
  '996c2d4826878f806b38324305d72c135c6c8ada7f2650a47a7b07a8490204ac',
  'c0950c3c68eaea04af287476f9fa35ec6036788970bba7008e54d67c0e84c5a3',
  'c2cf83c886324d7350c72c9dc436e29f0ec5c8e89689acfc4484f9e5ea351dc6',
  'ac0e444cd7824b498cab2cd3cd524716b71f784367848d5f039bf69530cae4ab',
];

interface Journal {
  entries: { idx: number; when: number; tag: string }[];
}

function readJson<T>(name: string): T {
  return JSON.parse(readFileSync(join(migrationsFolder, 'meta', name), 'utf8')) as T;
}

test('released migrations have not changed', () => {
  expect(readMigrationFiles({ migrationsFolder }).map(({ hash }) => hash)).toEqual(FROZEN);
});

test('the journal rises in number and time', () => {
  const { entries } = readJson<Journal>('_journal.json');
  entries.forEach((entry, i) => {
    expect(entry.idx).toBe(i);
    expect(entry.tag).toMatch(new RegExp(`^${String(i).padStart(4, '0')}_`));
    expect(entry.when).toBeGreaterThan(entries[i - 1]?.when ?? 0);
  });
});

test('the newest snapshot is the schema: no migration is missing', async () => {
  const { entries } = readJson<Journal>('_journal.json');
  const newest = String(entries.length - 1).padStart(4, '0');
  type Snapshot = Awaited<ReturnType<typeof generateSQLiteDrizzleJson>>;
  const snapshot = readJson<Snapshot>(`${newest}_snapshot.json`);
  const current = await generateSQLiteDrizzleJson({ ...schema });
  expect(await generateSQLiteMigration(snapshot, current)).toEqual([]);
});

test('a fresh replay has the tables, columns and indexes of the schema, and no others', () => {
  const db = openDatabase(':memory:');
  const names = (sql: string): unknown[] => db.sqlite.prepare(sql).pluck().all();
  const tables = Object.values(schema).filter((value) => value instanceof SQLiteTable);
  const configs = tables.map((table) => getTableConfig(table));
  expect(
    names(`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_\\_%' ESCAPE '\\'
      AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name`),
  ).toEqual(configs.map(({ name }) => name).sort());
  for (const { name, columns, indexes, foreignKeys } of configs) {
    const rows = db.sqlite.pragma(`table_info(${name})`) as Record<string, unknown>[];
    expect(rows.map((row) => [row.name, row.type, row.notnull === 1])).toEqual(
      columns.map((column) => [column.name, column.getSQLType().toUpperCase(), column.notNull]),
    );
    const made = db.sqlite.pragma(`index_list(${name})`) as { name: string; origin: string }[];
    const unique = columns.filter((column) => column.isUnique).map((column) => column.uniqueName);
    expect(
      made
        .filter(({ origin }) => origin === 'c')
        .map((row) => row.name)
        .sort(),
    ).toEqual([...indexes.map(({ config }) => config.name), ...unique].sort());
    expect(db.sqlite.pragma(`foreign_key_list(${name})`)).toHaveLength(foreignKeys.length);
  }
  db.close();
});
