/** Loops and branches of the slow twin. */
import { assert } from '../../assert.ts';
import type { controlOps } from '../ops/control.ts';
import { at, scalar, type ReferenceGroup, type Tensor } from './tensor.ts';

/** Tensors of one shape under a new leading axis. */
function stack(parts: readonly Tensor[]): Tensor {
  const shape = [parts.length, ...(parts[0] as Tensor).shape];
  return { shape, data: Float64Array.from(parts.flatMap((part) => [...part.data])) };
}

export const control: ReferenceGroup<keyof typeof controlOps> = {
  loop: ([trips, condition, ...initial], { body, carried, scanned }, run) => {
    let state = initial;
    let goesOn = at(condition as Tensor, 0) !== 0;
    const scans = Array.from({ length: scanned }, (): Tensor[] => []);
    let iteration = 0;
    for (; goesOn && iteration < at(trips as Tensor, 0); iteration++) {
      const [next, ...rest] = run(body, [scalar(iteration), scalar(1), ...state]);
      goesOn = at(next as Tensor, 0) !== 0;
      state = rest.slice(0, carried);
      scans.forEach((scan, i) => scan.push(rest[carried + i] as Tensor));
    }
    assert(iteration > 0 || scanned === 0, 'loop: nothing to scan in a loop without a run');
    return [...state, ...scans.map(stack)];
  },
  choose: ([condition], { whenTrue, whenFalse }, run) =>
    run(at(condition as Tensor, 0) !== 0 ? whenTrue : whenFalse, []),
};
