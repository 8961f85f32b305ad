/**
 * Writes a model as a GGUF file (version 3, float32) for llama.cpp, with a vocabulary of made-up
 * pieces: the bench feeds token ids. Names and keys are those of llama.cpp's architectures `llama`
 * and `qwen2`; the first wants the rows of query and key heads in pairs and not in halves.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { must } from '../../core/assert.ts';
import type { PolicyModel } from '../../core/model/policy-directory.ts';
import type { ModelConfig } from '../../core/model/types.ts';

const ALIGNMENT = 32;
const FLOAT32_TENSOR = 0;
const TYPE = { uint32: 4, float32: 6, string: 8, array: 9, int32: 5 };
/** Token types of llama.cpp. */
const TOKEN = { normal: 1, unknown: 2, control: 3, byte: 6 };

const TENSOR_NAMES: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
};
const LAYER_NAMES: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};

export function writeGguf(file: string, { config, weights }: PolicyModel): void {
  const head = new Writer();
  const entries = metadata(config);
  head.text('GGUF').uint32(3).uint64(weights.size).uint64(entries.length);
  for (const entry of entries) entry(head);
  let offset = 0;
  for (const [name, { shape, data }] of weights) {
    head.string(ggufName(name)).uint32(shape.length);
    for (const size of [...shape].reverse()) head.uint64(size);
    head.uint32(FLOAT32_TENSOR).uint64(offset);
    offset = aligned(offset + data.byteLength);
  }
  const out = openSync(file, 'w');
  try {
    let at = writeAll(out, head.bytes(), 0);
    for (const [name, { shape, data }] of weights) {
      at = writeAll(out, new Uint8Array(aligned(at) - at), at);
      const turn = config.modelType === 'llama' && /\.[qk]_proj\.weight$/.test(name);
      const stored = turn ? inPairs(config.headDim, shape, data) : data;
      const bytes = new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
      at = writeAll(out, bytes, at);
    }
  } finally {
    closeSync(out);
  }
}

type Entry = (out: Writer) => void;

function metadata(config: ModelConfig): Entry[] {
  const { modelType: name, vocabulary } = config;
  const text =
    (key: string, value: string): Entry =>
    (out) =>
      out.string(key).uint32(TYPE.string).string(value);
  const count =
    (key: string, value: number): Entry =>
    (out) =>
      out.string(key).uint32(TYPE.uint32).uint32(value);
  const float =
    (key: string, value: number): Entry =>
    (out) =>
      out.string(key).uint32(TYPE.float32).float32(value);
  const list =
    (key: string, type: number, put: (out: Writer, i: number) => void): Entry =>
    (out) => {
      out.string(key).uint32(TYPE.array).uint32(type).uint64(vocabulary);
      for (let i = 0; i < vocabulary; i++) put(out, i);
    };
  return [
    text('general.architecture', name),
    count('general.alignment', ALIGNMENT),
    count(`${name}.context_length`, config.contextTokens),
    count(`${name}.embedding_length`, config.hidden),
    count(`${name}.block_count`, config.layers),
    count(`${name}.feed_forward_length`, config.intermediate),
    count(`${name}.attention.head_count`, config.heads),
    count(`${name}.attention.head_count_kv`, config.kvHeads),
    count(`${name}.attention.key_length`, config.headDim),
    count(`${name}.attention.value_length`, config.headDim),
    count(`${name}.rope.dimension_count`, config.headDim),
    float(`${name}.rope.freq_base`, config.ropeTheta),
    float(`${name}.attention.layer_norm_rms_epsilon`, config.rmsNormEpsilon),
    count(`${name}.vocab_size`, vocabulary),
    text('tokenizer.ggml.model', 'llama'),
    list('tokenizer.ggml.tokens', TYPE.string, (out, i) => out.string(pieceOf(i))),
    list('tokenizer.ggml.scores', TYPE.float32, (out, i) => out.float32(-i)),
    list('tokenizer.ggml.token_type', TYPE.int32, (out, i) => out.uint32(tokenType(i))),
    count('tokenizer.ggml.bos_token_id', 1),
    count('tokenizer.ggml.eos_token_id', 2),
    count('tokenizer.ggml.unknown_token_id', 0),
  ];
}

/** Three special pieces, 256 bytes as a SentencePiece vocabulary has them, then anything. */
function pieceOf(id: number): string {
  const special = ['<unk>', '<s>', '</s>'][id];
  if (special !== undefined) return special;
  if (id < 259) return `<0x${(id - 3).toString(16).toUpperCase().padStart(2, '0')}>`;
  return `▁piece${id}`;
}

function tokenType(id: number): number {
  if (id === 0) return TOKEN.unknown;
  if (id < 3) return TOKEN.control;
  return id < 259 ? TOKEN.byte : TOKEN.normal;
}

function ggufName(name: string): string {
  const [, layer, inner, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  if (inner === undefined) return must(TENSOR_NAMES[name], name);
  return `blk.${layer}.${must(LAYER_NAMES[inner], inner)}.${kind}`;
}

/** Rows (0, 1, .. d-1) of every query and key head as (0, d/2, 1, d/2 + 1, ..). */
function inPairs(headDim: number, [rows = 0, width = 0]: readonly number[], data: Float32Array) {
  const turned = new Float32Array(data.length);
  for (let row = 0; row < rows; row++) {
    const at = row % headDim;
    const from = row - at + (at % 2) * (headDim / 2) + (at >> 1);
    turned.set(data.subarray(from * width, (from + 1) * width), row * width);
  }
  return turned;
}

function aligned(offset: number): number {
  return Math.ceil(offset / ALIGNMENT) * ALIGNMENT;
}

/** Writes all of `bytes` and returns the offset after them. */
function writeAll(out: number, bytes: Uint8Array, at: number): number {
  for (let done = 0; done < bytes.length;) done += writeSync(out, bytes, done);
  return at + bytes.length;
}

/** Little-endian fields, in order. */
class Writer {
  private readonly parts: Uint8Array[] = [];

  text(value: string): this {
    return this.add(Buffer.from(value, 'utf8'));
  }

  string(value: string): this {
    const bytes = Buffer.from(value, 'utf8');
    return this.uint64(bytes.length).add(bytes);
  }

  uint32(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return this.add(bytes);
  }

  uint64(value: number): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return this.add(bytes);
  }

  float32(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    return this.add(bytes);
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.parts);
  }

  private add(bytes: Uint8Array): this {
    this.parts.push(bytes);
    return this;
  }
}
