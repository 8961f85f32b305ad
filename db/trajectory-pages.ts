/**
 * Pages of trajectories by creation, whatever is filtered by. One condition leads: its index is
 * walked from the cursor on, and the other conditions are checked row by row, in slices of bounded
 * cost, between which others may work. When the first slice has not filled the page, the cheapest
 * way leads from there on, as far as bounded counts tell: the rarest condition, or all rows where
 * the index of creation has what is asked. So no request sorts, or holds its thread for long; a
 * page that would take very many slices ends early, with a cursor that goes on from there.
 *
 * A cursor is the (created_at, id) of the last row that was looked at. Rows that come meanwhile
 * have other keys, so they neither repeat nor hide one that was there.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type BetterSqlite3 from 'better-sqlite3';
import { getTableColumns } from 'drizzle-orm';
import { LIMITS } from '../core/limits.ts';
import type { TrajectoryRecord } from '../core/records.ts';
import type { Page, PageRequest } from './page.ts';
import { pageLimit, wrongCursor } from './page.ts';
import { trajectories } from './schema.ts';
import { conditionsOf, leadsOf } from './trajectory-filter.ts';
import type { Condition, Lead, TrajectoryFilter } from './trajectory-filter.ts';

export interface TrajectoryPageRequest extends PageRequest {
  oldestFirst?: boolean;
}

/** A place in the order of lists. */
interface Key {
  createdAt: number;
  id: string;
}

/** What lies between two keys; they themselves are out of it unless `included`. */
interface Range {
  low: Bound;
  high: Bound;
}

interface Bound extends Key {
  included?: boolean;
}

interface Edge extends Key {
  rowid: number;
}

interface Query {
  sql: string;
  values: (string | number)[];
}

/** How many times a bound a condition is taken to have whose rows were not counted to the end. */
const UNCOUNTED = 8;

export type TrajectoryRow = Omit<TrajectoryRecord, 'formatOk'> & { formatOk: number };

const HIDDEN = new Set([
  'rewardedAt',
  'continuationKey',
  'trainingStep',
  'entropyJump',
  'consumedBy',
  'offeredTools',
  'metadata',
]);

/** The columns of a record, for SELECT from `trajectories t`. */
export const TRAJECTORY_COLUMNS: string = Object.entries(getTableColumns(trajectories))
  .filter(([field]) => !HIDDEN.has(field))
  .map(([field, { name }]) => `t.${name} AS "${field}"`)
  .join(', ');

export function trajectoryFromRow(row: TrajectoryRow): TrajectoryRecord {
  return { ...row, formatOk: row.formatOk === 1 };
}

export class TrajectoryPages {
  private readonly sqlite: BetterSqlite3.Database;
  private readonly pageMicros: number;

  constructor(sqlite: BetterSqlite3.Database, pageMicros: number = LIMITS.listPageMicros) {
    this.sqlite = sqlite;
    this.pageMicros = pageMicros;
  }

  /** Newest first, or oldest. @throws AppError invalid_request for a wrong limit or cursor. */
  list(filter: TrajectoryFilter, page: TrajectoryPageRequest): Page<TrajectoryRecord> {
    const walk = this.walk(filter, page);
    for (;;) {
      const { done, value } = walk.next();
      if (done === true) return value;
    }
  }

  /** The same, with a turn of the event loop between slices. */
  async listInTurns(
    filter: TrajectoryFilter,
    page: TrajectoryPageRequest,
  ): Promise<Page<TrajectoryRecord>> {
    const walk = this.walk(filter, page);
    for (;;) {
      const { done, value } = walk.next();
      if (done === true) return value;
      await nextTurn();
    }
  }

  /** The statements that a page would run, for tests of their plans. */
  queries(filter: TrajectoryFilter, page: TrajectoryPageRequest = {}): Query[] {
    const range = rangeOf(filter, page);
    const leads = leadsOf(filter);
    const order = orderOf(page);
    return leads.flatMap((lead) => [
      countQuery(lead, range, 10),
      edgeQuery(lead, range, order, 10),
      rowsQuery(lead, conditionsOf(filter), { range, order, limit: 10 }),
    ]);
  }

  /** Yields between slices. */
  private *walk(
    filter: TrajectoryFilter,
    page: TrajectoryPageRequest,
  ): Generator<void, Page<TrajectoryRecord>> {
    const limit = pageLimit(page);
    const order = orderOf(page);
    const conditions = conditionsOf(filter);
    let range = rangeOf(filter, page);
    const leads = leadsOf(filter);
    let [lead] = leads;
    const found: TrajectoryRecord[] = [];
    let slice: number = LIMITS.listFirstSliceMicros;
    for (let spent = slice; ; spent += slice) {
      // With nothing to check, every row of the walk fits, and none is looked at in vain.
      const rows = Math.ceil(slice / lead.micros);
      const end = conditions.length === 0 ? null : this.edge(lead, range, order, rows);
      const within = end === null ? range : upTo(range, order, end);
      const wanted = limit + 1 - found.length;
      const query = rowsQuery(lead, conditions, { range: within, order, limit: wanted });
      found.push(...this.all<TrajectoryRow>(query).map(trajectoryFromRow));
      if (found.length > limit) {
        const items = found.slice(0, limit);
        return { items, nextCursor: cursorOf(items.at(-1) as TrajectoryRecord) };
      }
      if (end === null) return { items: found, nextCursor: null };
      if (spent >= this.pageMicros) return { items: found, nextCursor: cursorOf(end) };
      range = from(range, order, end);
      // All leads have the same order, so any of them can go on from here.
      if (spent === LIMITS.listFirstSliceMicros) lead = this.cheapest(leads, range);
      slice = LIMITS.listSliceMicros;
      yield;
    }
  }

  /** The one that costs least, as far as counting up to some bounds tells. */
  private cheapest(leads: readonly [Lead, ...Lead[]], range: Range): Lead {
    const all = leads.at(-1) as Lead;
    const costOfAll = this.span(all, range) * all.micros;
    for (const bound of LIMITS.listRowsCounted) {
      let [best, least, counted] = [all, costOfAll, false];
      for (const lead of leads.slice(0, -1)) {
        const rows = this.rowsOf(lead, range, bound);
        counted ||= rows < bound;
        // One with more rows than the last bound may have very many more.
        const cost = rows * lead.micros * (rows < bound ? 1 : UNCOUNTED);
        if (cost < least) [best, least] = [lead, cost];
      }
      if (counted || bound === LIMITS.listRowsCounted.at(-1)) return best;
    }
    return all;
  }

  private rowsOf(lead: Lead, range: Range, bound: number): number {
    const [row] = this.all<{ rows: number }>(countQuery(lead, range, bound));
    return row?.rows ?? 0;
  }

  /** About how many rows there are, from two of them: they are numbered as they come. */
  private span(lead: Lead, range: Range): number {
    const [first, last] = (['ASC', 'DESC'] as const).map((order) =>
      this.edge(lead, range, order, 0),
    );
    return Math.abs((last?.rowid ?? 0) - (first?.rowid ?? 0));
  }

  /** The row after so many others, by its key; null when no more than that are left. */
  private edge(lead: Lead, range: Range, order: Order, after: number): Edge | null {
    return this.all<Edge>(edgeQuery(lead, range, order, after))[0] ?? null;
  }

  private all<Row>({ sql, values }: Query): Row[] {
    return this.sqlite.prepare<(string | number)[], Row>(sql).all(...values);
  }
}

type Order = 'ASC' | 'DESC';

const orderOf = ({ oldestFirst }: TrajectoryPageRequest): Order =>
  oldestFirst === true ? 'ASC' : 'DESC';

/** Beyond any time and any id. */
const LOWEST: Key = { createdAt: Number.MIN_SAFE_INTEGER, id: '' };
const HIGHEST: Key = { createdAt: Number.MAX_SAFE_INTEGER, id: '' };

function rangeOf(filter: TrajectoryFilter, page: TrajectoryPageRequest): Range {
  const { createdFrom, createdBefore } = filter;
  const low = createdFrom === undefined ? LOWEST : { createdAt: createdFrom, id: '' };
  const high = createdBefore === undefined ? HIGHEST : { createdAt: createdBefore, id: '' };
  const range = { low, high };
  if (page.cursor === undefined) return range;
  const key = keyOf(page.cursor);
  const order = orderOf(page);
  // A cursor of another filter must not widen this one's times.
  const within = order === 'ASC' ? isLess(range.low, key) : isLess(key, range.high);
  return within ? from(range, order, key) : range;
}

const isLess = (a: Key, b: Key): boolean =>
  a.createdAt < b.createdAt || (a.createdAt === b.createdAt && a.id < b.id);

/** What comes after a key. */
const from = (range: Range, order: Order, key: Key): Range =>
  order === 'ASC' ? { ...range, low: key } : { ...range, high: key };

/** What comes up to a key, itself included. */
function upTo(range: Range, order: Order, key: Key): Range {
  const bound = { ...key, included: true };
  return order === 'ASC' ? { ...range, high: bound } : { ...range, low: bound };
}

function cursorOf({ createdAt, id }: Key): string {
  return Buffer.from(`${createdAt} ${id}`).toString('base64url');
}

/** @throws AppError invalid_request for what is no cursor of ours. */
function keyOf(cursor: string): Key {
  const text = Buffer.from(cursor, 'base64url').toString('utf8');
  const match = /^(-?\d{1,15}) (.+)$/s.exec(text);
  if (match !== null) return { createdAt: Number(match[1]), id: match[2] as string };
  throw wrongCursor(cursor);
}

interface Source {
  from: string;
  createdAt: string;
  id: string;
  rowid: string;
}

function sourceOf({ index }: Lead): Source {
  if (index !== null) {
    const from = `trajectories t INDEXED BY ${index}`;
    return { from, createdAt: 't.created_at', id: 't.id', rowid: 't.rowid' };
  }
  const tools = 'trajectory_tools u INDEXED BY trajectory_tools_created';
  return { from: tools, createdAt: 'u.created_at', id: 'u.trajectory_id', rowid: 'u.rowid' };
}

/** One SELECT for each walk, merged. */
function walks(
  lead: Lead,
  { low, high }: Range,
  select: (source: Source) => { columns: string; join?: string; and?: readonly Condition[] },
): Query {
  const source = sourceOf(lead);
  const { columns, join = '', and = [] } = select(source);
  const key = `(${source.createdAt}, ${source.id})`;
  const bounds = [low.createdAt, low.id, high.createdAt, high.id];
  const above = low.included === true ? '>=' : '>';
  const below = high.included === true ? '<=' : '<';
  const checks = and.map(({ sql }) => ` AND ${sql}`).join('');
  const checked = and.flatMap(({ values }) => values);
  return {
    sql: lead.walks
      .map(
        ({ sql }) =>
          `SELECT ${columns} FROM ${source.from}${join} ` +
          `WHERE ${sql} AND ${key} ${above} (?, ?) AND ${key} ${below} (?, ?)${checks}`,
      )
      .join(' UNION ALL '),
    values: lead.walks.flatMap(({ values }) => [...values, ...bounds, ...checked]),
  };
}

/** How many rows a lead has, up to a bound. */
function countQuery(lead: Lead, range: Range, bound: number): Query {
  const { sql, values } = walks(lead, range, () => ({ columns: '1' }));
  return { sql: `SELECT count(*) AS rows FROM (${sql} LIMIT ?)`, values: [...values, bound] };
}

/** The row that comes after so many others. */
function edgeQuery(lead: Lead, range: Range, order: Order, after: number): Query {
  const { sql, values } = walks(lead, range, ({ createdAt, id, rowid }) => ({
    columns: `${createdAt} AS "createdAt", ${id} AS "id", ${rowid} AS "rowid"`,
  }));
  return {
    sql: `${sql} ORDER BY "createdAt" ${order}, "id" ${order} LIMIT 1 OFFSET ?`,
    values: [...values, after],
  };
}

function rowsQuery(
  lead: Lead,
  conditions: readonly Condition[],
  { range, order, limit }: { range: Range; order: Order; limit: number },
): Query {
  const { sql, values } = walks(lead, range, () => ({
    // The order is that of the index which leads, in its own columns.
    columns:
      lead.index === null
        ? TRAJECTORY_COLUMNS.replace('t.created_at', 'u.created_at').replace(
            't.id',
            'u.trajectory_id',
          )
        : TRAJECTORY_COLUMNS,
    // CROSS JOIN fixes the order: from the names to the trajectories.
    ...(lead.index === null && {
      join: ' CROSS JOIN trajectories t ON t.id = u.trajectory_id',
    }),
    and: conditions,
  }));
  return {
    sql: `${sql} ORDER BY "createdAt" ${order}, "id" ${order} LIMIT ?`,
    values: [...values, limit],
  };
}
