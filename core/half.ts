/**
 * IEEE half precision: numbers to 16 bits, rounded to the nearest (ties to even), and back. Written
 * over whole arrays, because weights have millions of numbers; Node 20 has no Float16Array.
 */

/** The 16 bits of each number; beyond 65,504 they are infinite. */
export function toHalf(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) halves[i] = halfOf(words[i] as number);
  return halves;
}

/** The numbers that 16-bit halves stand for. */
export function fromHalf(halves: Uint16Array): Float32Array {
  return Float32Array.from(halves, (half) => {
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    const sign = half & 0x8000 ? -1 : 1;
    if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1024 + fraction) * 2 ** (exponent - 25);
  });
}

/** From the 32 bits of a float: its exponent is rebased from 127 to 15. */
function halfOf(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fff_ffff;
  if (magnitude > 0x7f80_0000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477f_f000) return sign | 0x7c00; // Rounds past 65,504.
  if (magnitude < 0x3300_0000) return sign; // Below half of the smallest subnormal.
  const exponent = magnitude >>> 23;
  if (exponent < 113) {
    // Subnormal: the implicit one becomes a bit of the fraction.
    return sign | rounded((magnitude & 0x7f_ffff) | 0x80_0000, 126 - exponent);
  }
  // A carry of the fraction goes into the exponent, which is right.
  return sign | rounded(magnitude - (112 << 23), 13);
}

/** value / 2^bits to the nearest integer, ties to even; bits is 13 to 24. */
function rounded(value: number, bits: number): number {
  const kept = value >>> bits;
  const rest = value & (2 ** bits - 1);
  const tie = 2 ** (bits - 1);
  return rest > tie || (rest === tie && kept % 2 === 1) ? kept + 1 : kept;
}
