/**
 * Inverse frequencies of rotary embeddings under each scaling: plain and linear (RoFormer, position
 * interpolation), llama3 (Llama 3.1), yarn (arXiv:2309.00071).
 *
 * Every step is rounded to float32 where transformers does it. That matters: an angle is a position
 * times a frequency, so a last bit that differs turns the angles of far tokens by hundredths.
 */
import { assert } from '../assert.ts';
import type { ModelConfig, RopeScaling } from './types.ts';

type Scaled<T extends RopeScaling['type']> = Extract<RopeScaling, { type: T }>;
const { fround } = Math;

/** One frequency for each pair of the head, in radians a token: (d / 2). */
export function inverseFrequencies(config: ModelConfig): Float32Array {
  const { headDim, ropeTheta, ropeScaling: scaling } = config;
  const wavelengths = Float32Array.from({ length: headDim / 2 }, (_, i) =>
    fround(fround(ropeTheta) ** fround((2 * i) / headDim)),
  );
  const plain = wavelengths.map((wavelength) => 1 / wavelength);
  const frequencies =
    scaling === undefined
      ? plain
      : scaling.type === 'linear'
        ? plain.map((frequency) => frequency / scaling.factor)
        : scaling.type === 'llama3'
          ? plain.map((frequency) => llama3(frequency, scaling))
          : yarn(wavelengths, headDim, ropeTheta, scaling);
  assert(frequencies.every(Number.isFinite), 'rotary frequencies are finite');
  return frequencies;
}

/** What cosines and sines are multiplied by; yarn's way to sharpen attention over long windows. */
export function rotaryGain({ ropeScaling }: ModelConfig): number {
  return ropeScaling?.type === 'yarn' ? ropeScaling.attentionFactor : 1;
}

/** YaRN's attention factor for a window `factor` times as long. */
export function yarnAttentionFactor(factor: number, mscale = 1): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** Long waves are stretched by the factor, short ones kept, those between interpolated. */
function llama3(frequency: number, scaling: Scaled<'llama3'>): number {
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high } = scaling;
  const wavelength = fround(fround(2 * Math.PI) / frequency);
  if (wavelength < scaling.originalContextTokens / high) return frequency;
  const stretched = fround(frequency / factor);
  if (wavelength > scaling.originalContextTokens / low) return stretched;
  const turns = fround(scaling.originalContextTokens / wavelength);
  const kept = fround(fround(turns - low) / (high - low));
  return fround(fround(fround(1 - kept) * frequency) / factor) + fround(kept * frequency);
}

/** Between the pair that turns betaFast times in the window and the one that turns betaSlow. */
function yarn(
  wavelengths: Float32Array,
  headDim: number,
  theta: number,
  scaling: Scaled<'yarn'>,
): Float32Array {
  const { factor, originalContextTokens, betaFast, betaSlow, truncate } = scaling;
  const pairWith = (turns: number) =>
    (headDim * Math.log(originalContextTokens / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const fast = truncate ? Math.floor(pairWith(betaFast)) : pairWith(betaFast);
  const slow = truncate ? Math.ceil(pairWith(betaSlow)) : pairWith(betaSlow);
  const low = Math.max(fast, 0);
  let high = Math.min(slow, headDim - 1);
  if (low === high) high += 0.001; // No division by zero.
  return wavelengths.map((wavelength, i) => {
    const ramp = fround(fround(i - fround(low)) / fround(high - low));
    const kept = fround(1 - Math.min(Math.max(ramp, 0), 1));
    const stretched = fround(1 / fround(factor * wavelength));
    return fround(stretched * fround(1 - kept)) + fround(fround(1 / wavelength) * kept);
  });
}
