/**
 * A minimal protobuf writer: just the wire types that ONNX messages use (varint, 32-bit, length-
 * delimited). Chunks are collected and joined once, so tensors are copied a single time.
 */

const encoder = new TextEncoder();

export class ProtoWriter {
  private readonly chunks: Uint8Array[] = [];
  private size = 0;

  get byteLength(): number {
    return this.size;
  }

  varint(field: number, value: number | bigint): this {
    this.tag(field, 0);
    return this.raw(varintBytes(BigInt(value)));
  }

  float(field: number, value: number): this {
    this.tag(field, 5);
    return this.raw(new Uint8Array(Float32Array.of(value).buffer));
  }

  string(field: number, value: string): this {
    return this.bytes(field, encoder.encode(value));
  }

  bytes(field: number, value: Uint8Array): this {
    this.tag(field, 2);
    this.raw(varintBytes(BigInt(value.byteLength)));
    return this.raw(value);
  }

  message(field: number, value: ProtoWriter): this {
    this.tag(field, 2);
    this.raw(varintBytes(BigInt(value.size)));
    for (const chunk of value.chunks) this.raw(chunk);
    return this;
  }

  finish(): Uint8Array {
    const out = new Uint8Array(this.size);
    let offset = 0;
    for (const chunk of this.chunks) {
      out.set(chunk, offset);
      offset += chunk.byteLength;
    }
    return out;
  }

  private tag(field: number, wireType: number): void {
    this.raw(varintBytes(BigInt((field << 3) | wireType)));
  }

  private raw(chunk: Uint8Array): this {
    this.chunks.push(chunk);
    this.size += chunk.byteLength;
    return this;
  }
}

/** Base-128, least significant group first; negative numbers as 64-bit two's complement. */
function varintBytes(value: bigint): Uint8Array {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, value);
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    out.push(rest === 0n ? low : low | 0x80);
  } while (rest !== 0n);
  return Uint8Array.from(out);
}
