/**
 * Pages of a list: at most `limit` items after a cursor. The cursor is the key of the last item
 * seen, so rows that are added meanwhile neither repeat nor hide one that was there.
 */
import { AppError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

export interface PageRequest {
  /** `nextCursor` of the page before. */
  cursor?: string;
  /** 1 to LIMITS.pageItemsMax; LIMITS.pageItemsDefault when absent. */
  limit?: number;
}

export interface Page<T> {
  items: T[];
  /** Null when this was the last page. */
  nextCursor: string | null;
}

/** @throws AppError invalid_request when the limit is out of range. */
export function pageLimit(request: PageRequest): number {
  const limit = request.limit ?? LIMITS.pageItemsDefault;
  if (!Number.isInteger(limit) || limit < 1 || limit > LIMITS.pageItemsMax) {
    throw new AppError(
      'invalid_request',
      `limit must be an integer from 1 to ${LIMITS.pageItemsMax}, not ${limit}`,
      { param: 'limit' },
    );
  }
  return limit;
}

/** Makes a page of rows that were read with LIMIT limit + 1. */
export function toPage<T>(rows: T[], limit: number, key: (row: T) => string): Page<T> {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  const nextCursor = rows.length > limit && last !== undefined ? key(last) : null;
  return { items, nextCursor };
}

/** For what is no cursor of the list. */
export function wrongCursor(cursor: string): AppError {
  return new AppError('invalid_request', `cursor: '${cursor}' is not one that this list gives`, {
    param: 'cursor',
  });
}
