/**
 * JSON text as bytes, for lines that are mostly long arrays of numbers: digits are written straight
 * into a buffer, several times as fast as JSON.stringify over arrays of boxed numbers. A 32-bit
 * float gets nine significant digits, which is enough to give the same bits back; what JSON has no
 * number for (-0, NaN, infinities) stands as a text.
 */

const DIGITS = 9;
/** Of a figure: sign, nine digits, point, leading zeros or exponent, comma. */
const FIGURE_BYTES = 24;
const INTEGER_BYTES = 11;

const [ZERO, MINUS, POINT, COMMA, OPEN, CLOSE, EXPONENT] = Array.from('0-.,[]e', (character) =>
  character.charCodeAt(0),
) as [number, number, number, number, number, number, number];

/** The smallest float is about 1.4e-45: scaling it to nine digits takes 10^53. */
const POWERS = Array.from({ length: 54 }, (_, exponent) => Number(`1e${exponent}`));
const power = (exponent: number): number => POWERS[exponent] as number;
/** Below it figures are written with an exponent, from `PLAIN_MAX` on by the runtime. */
const PLAIN_MIN = 1e-6;
const PLAIN_MAX = 1e9;
const INT32_MAX = 0x7fffffff;

export class LineWriter {
  private buffer: Buffer;
  private end = 0;

  constructor(bytes: number) {
    this.buffer = Buffer.allocUnsafe(bytes);
  }

  get length(): number {
    return this.end;
  }

  text(text: string): void {
    // UTF-8 takes at most three bytes for a UTF-16 unit.
    this.reserve(3 * text.length);
    this.end += this.buffer.write(text, this.end, 'utf8');
  }

  /** An object that is not closed yet. */
  open(object: object): void {
    this.text(JSON.stringify(object));
    this.end--;
  }

  bytes(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.end);
    this.end += bytes.length;
  }

  /** `[1,2,3]` */
  integers(values: Uint32Array): void {
    this.reserve(INTEGER_BYTES * values.length + 2);
    this.array(values, writeInteger);
  }

  /** `[-0.5,1e-9,"NaN"]` */
  figures(values: Float32Array): void {
    this.reserve(FIGURE_BYTES * values.length + 2);
    this.array(values, writeFigure);
  }

  /** A copy of what was written since the last call. */
  take(): Buffer<ArrayBuffer> {
    // Of its own memory, not of the pool: it may be moved to another thread.
    const bytes = Buffer.allocUnsafeSlow(this.end);
    this.buffer.copy(bytes, 0, 0, this.end);
    this.end = 0;
    return bytes;
  }

  private array(values: Uint32Array | Float32Array, write: Write): void {
    const { buffer } = this;
    let at = this.end;
    buffer[at++] = OPEN;
    for (let i = 0; i < values.length; i++) {
      if (i > 0) buffer[at++] = COMMA;
      at = write(buffer, at, values[i] as number);
    }
    buffer[at++] = CLOSE;
    this.end = at;
  }

  private reserve(bytes: number): void {
    if (this.end + bytes <= this.buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(2 * this.buffer.length, this.end + bytes));
    this.buffer.copy(larger, 0, 0, this.end);
    this.buffer = larger;
  }
}

/** Writes a number at a place and returns the place after it. */
type Write = (buffer: Buffer, at: number, value: number) => number;

const writeFigure: Write = (buffer, at, value) => {
  const size = Math.abs(value);
  if (size >= PLAIN_MIN && size < PLAIN_MAX) return writePlain(buffer, at, value);
  if (size > 0 && size < PLAIN_MIN) return writeScientific(buffer, at, value);
  let text = Object.is(value, 0) ? '0' : `"${Object.is(value, -0) ? '-0' : value}"`;
  if (size >= PLAIN_MAX && size < Infinity) text = String(Number(value.toPrecision(DIGITS)));
  return at + buffer.write(text, at, 'latin1');
};

/** Nine digits of a figure from 1e-6 up to 1e9. */
function writePlain(buffer: Buffer, from: number, value: number): number {
  let at = from;
  const size = Math.abs(value);
  let decimals = DIGITS - 1;
  if (size >= 1) while (size >= power(DIGITS - decimals)) decimals--;
  else while (size * power(decimals - DIGITS + 1) < 1) decimals++;
  // At most 10^9, so all of this is 32-bit arithmetic, which is why it is fast.
  let digits = Math.round(size * power(decimals)) | 0;
  while (decimals > 0 && digits % 10 === 0) {
    digits = (digits / 10) | 0;
    decimals--;
  }
  if (value < 0) buffer[at++] = MINUS;
  if (decimals === 0) return writeInteger(buffer, at, digits);
  let fraction = digits;
  if (size >= 1) {
    const scale = power(decimals) | 0;
    const whole = (digits / scale) | 0;
    fraction = digits - whole * scale;
    at = writeInteger(buffer, at, whole);
  } else {
    buffer[at++] = ZERO;
  }
  buffer[at++] = POINT;
  return writePadded(buffer, at, fraction, decimals);
}

/** `1.5e-9`, of a figure below 1e-6. */
function writeScientific(buffer: Buffer, from: number, value: number): number {
  let at = from;
  const size = Math.abs(value);
  let exponent = 7;
  while (size * power(exponent) < 1) exponent++;
  let decimals = DIGITS - 1;
  let digits = Math.round(size * power(exponent + decimals)) | 0;
  while (decimals > 0 && digits % 10 === 0) {
    digits = (digits / 10) | 0;
    decimals--;
  }
  if (value < 0) buffer[at++] = MINUS;
  const scale = power(decimals) | 0;
  const whole = (digits / scale) | 0;
  at = writeInteger(buffer, at, whole);
  if (decimals > 0) {
    buffer[at++] = POINT;
    at = writePadded(buffer, at, digits - whole * scale, decimals);
  }
  buffer[at++] = EXPONENT;
  buffer[at++] = MINUS;
  return writeInteger(buffer, at, exponent);
}

function writeInteger(buffer: Buffer, at: number, value: number): number {
  if (value > INT32_MAX) return at + buffer.write(String(value), at, 'latin1');
  let count = 1;
  for (let bound = 10; value >= bound; bound *= 10) count++;
  return writePadded(buffer, at, value | 0, count);
}

/** Exactly `count` digits. */
function writePadded(buffer: Buffer, at: number, value: number, count: number): number {
  let rest = value | 0;
  for (let i = at + count - 1; i >= at; i--) {
    const next = (rest / 10) | 0;
    buffer[i] = ZERO + rest - 10 * next;
    rest = next;
  }
  return at + count;
}
