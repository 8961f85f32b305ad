/**
 * What the packed-training benches share: flat rows, packed rows and the trainer's choice take
 * turns, and are compared by the clock and by processor time, turn against turn.
 */
import type { Packing } from '../core/trainer/pack-plan.ts';
import { median, type Row, type Spent } from './report.ts';

export const FORMS: readonly Packing[] = ['flat', 'packed', 'auto'];

/**
 * The results of `repeats` rounds of steps. A round before them makes the sessions and is not
 * counted. Rounds begin with another form each.
 */
export async function inTurns<T extends Spent>(
  repeats: number,
  step: (form: Packing) => Promise<T>,
): Promise<Map<Packing, T[]>> {
  const results = new Map(FORMS.map((form) => [form, [] as T[]]));
  for (let repeat = 0; repeat <= repeats; repeat++) {
    for (let turn = 0; turn < FORMS.length; turn++) {
      const form = FORMS[(repeat + turn) % FORMS.length]!;
      const result = await step(form);
      if (repeat > 0) results.get(form)!.push(result);
    }
  }
  return results;
}

/** Median seconds of each form, and medians of how many times as fast as flat in the same round. */
export function comparison(results: ReadonlyMap<Packing, readonly Spent[]>): Row {
  const of = (form: Packing, measure: keyof Spent) => results.get(form)!.map((x) => x[measure]);
  const ratio = (form: Packing, measure: keyof Spent) => {
    const [flat, other] = [of('flat', measure), of(form, measure)];
    return median(flat.map((seconds, i) => seconds / other[i]!));
  };
  return {
    'flat s': median(of('flat', 'seconds')),
    'packed s': median(of('packed', 'seconds')),
    'auto s': median(of('auto', 'seconds')),
    'packed x flat': ratio('packed', 'seconds'),
    'auto x flat': ratio('auto', 'seconds'),
    'flat CPU s': median(of('flat', 'cpuSeconds')),
    'auto CPU s': median(of('auto', 'cpuSeconds')),
    'packed x flat, CPU': ratio('packed', 'cpuSeconds'),
    'auto x flat, CPU': ratio('auto', 'cpuSeconds'),
  };
}
