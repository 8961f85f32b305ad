/**
 * Fair allocation of a group's branch slots without waiting for one another. Every root owns an
 * even share of the slots; a branch spends some of its owner's and divides the rest between the
 * trajectory and its new siblings. Nobody can take what is another's, so who forks first does not
 * matter. A share that is never spent becomes fresh roots when all have ended.
 *
 * The unit is a beam: the slots of one branch. Odd ones go round from a place that the caller
 * draws, so that low indexes are not favoured.
 */

/** A beam: indexes for the siblings of one branch. */
export type Beam = readonly number[];

/** Slots in runs of `width`; what is left over makes a smaller last one. */
export function beamsOf(slots: readonly number[], width: number): Beam[] {
  const beams: Beam[] = [];
  for (let i = 0; i < slots.length; i += width) beams.push(slots.slice(i, i + width));
  return beams;
}

/** Deals items to `hands`, one after the other, beginning with hand `first` modulo their number. */
export function deal<T>(items: readonly T[], hands: number, first: number): T[][] {
  const dealt = Array.from({ length: hands }, (): T[] => []);
  items.forEach((item, i) => dealt[(first + i) % hands]?.push(item));
  return dealt;
}
