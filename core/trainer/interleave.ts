/**
 * Lists laid into one another. Mini-batches are cut from a step's groups in order, so groups of one
 * kind that stood together would be an update of their own.
 */

/** The items of all lists, each list in its order and spread evenly over the whole. */
export function interleave<T>(lists: readonly (readonly T[])[]): T[] {
  return lists
    .flatMap((list) => list.map((item, i) => ({ item, place: (i + 0.5) / list.length })))
    .sort((a, b) => a.place - b.place)
    .map(({ item }) => item);
}
