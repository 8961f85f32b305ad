/** Rotary position embedding of the slow twin. */
import type { rotaryOps } from '../ops/rotary.ts';
import { at, generate, type ReferenceGroup, type Tensor } from './tensor.ts';

export const rotary: ReferenceGroup<keyof typeof rotaryOps> = {
  rotary: (inputs) => {
    const [x, places, cosines, sines] = inputs as [Tensor, Tensor, Tensor, Tensor];
    const width = x.shape.at(-1) as number;
    const half = cosines.shape.at(-1) as number;
    const turned = (i: number) => {
      const angle = at(places, Math.floor(i / width)) * half + (i % half);
      const inHead = i % (2 * half);
      const other = inHead < half ? -at(x, i + half) : at(x, i - half);
      return at(x, i) * at(cosines, angle) + other * at(sines, angle);
    };
    return [generate(x.shape, turned)];
  },
};
