/**
 * A complete small policy without a neural network: next-token probabilities come from a table
 * keyed by the last one or two tokens. It is a real Sampler (append, fork, truncate, stop tokens,
 * limits, window, abort, keyed draws), with a tokenizer, a tag protocol and tools to go with it, so
 * the agent loop and the rollouts can be tested in milliseconds and their numbers recomputed by
 * hand.
 */
import { AppError, toAppError } from '../../core/errors.ts';
import { ManualClock } from '../../core/clock.ts';
import { idGenerator } from '../../core/ids.ts';
import { uniform } from '../../core/prng.ts';
import type { EpisodeContext } from '../../core/agent/types.ts';
import type {
  OpenOptions,
  SampleRequest,
  SampleResult,
  Sampler,
  Sequence,
  ToolRunner,
} from '../../core/ports.ts';
import { splitAnswers } from '../../core/text/continuation.ts';
import type { ParsedStep, Protocol, Tokenizer } from '../../core/text/types.ts';

const TAGS = ['think', 'search', 'lookup', 'result', 'answer', 'user'];
const SPECIALS = [...TAGS.flatMap((tag) => [`<${tag}>`, `</${tag}>`]), '\\boxed{', '<eos>'];
const CHARACTERS = [...'abcdefghijklmnopqrstuvwxyz0123456789 ?:.,;\'"-_{}<>/!'];
const PIECES = [...SPECIALS, ...CHARACTERS];
const IDS = new Map(PIECES.map((piece, id) => [piece, id]));

/** Id of one piece of text of the vocabulary. */
export function tokenOf(piece: string): number {
  const id = IDS.get(piece);
  if (id === undefined) throw new Error(`not in the vocabulary: ${piece}`);
  return id;
}

export const tokenizer: Tokenizer = {
  vocabularySize: PIECES.length,
  encode: (text) => [...text.toLowerCase()].map((char) => IDS.get(char) ?? tokenOf('_')),
  encodeTemplate: (text) =>
    text
      .split(/(<\/?[a-z]+>|\\boxed\{)/)
      .flatMap((part) => (IDS.has(part) ? [tokenOf(part)] : tokenizer.encode(part))),
  decode: (tokens) => Array.from(tokens, (id) => PIECES[id]).join(''),
  tokenBytes: (token) => new TextEncoder().encode(PIECES[token] ?? ''),
  tokenId: (token) => IDS.get(token) ?? null,
};

const STEP =
  /^<think>([^<]*)<\/think>(?:<(search|lookup)>([^<]*)<\/\2>|<answer>([^<]*)<\/answer>)$/;

function parseStep(text: string): ParsedStep {
  const match = STEP.exec(text);
  if (match === null) {
    const malformed = text.includes('<') ? 'tags unpaired or out of order' : null;
    return { reasoning: null, content: text, calls: [], answer: null, malformed };
  }
  const [, reasoning = '', tool, body = '', answerText] = match;
  const boxed = answerText === undefined ? null : /\\boxed\{([^}]*)\}/.exec(answerText);
  return {
    reasoning,
    content: '',
    calls: tool === undefined ? [] : [{ name: tool, arguments: JSON.stringify({ query: body }) }],
    answer: boxed?.[1] ?? null,
    malformed: null,
  };
}

export const protocol: Protocol = {
  name: 'tags',
  opening: null,
  stopTokens: ['</search>', '</lookup>', '</answer>', '<eos>'].map(tokenOf),
  renderPrompt: (messages) => [
    tokenOf('<user>'),
    ...tokenizer.encode(messages.map(({ content }) => content ?? '').join(' ')),
    tokenOf('</user>'),
  ],
  renderToolResults: (results) => [
    tokenOf('<result>'),
    ...tokenizer.encode(results.map(({ result }) => result).join(';')),
    tokenOf('</result>'),
  ],
  renderContinuation: (step, messages) => {
    const { answers, rest } = splitAnswers(step, messages);
    const results = answers.map(({ content }) => ({ name: '', result: content ?? '' }));
    return [
      ...(results.length > 0 ? protocol.renderToolResults(results) : []),
      ...(rest.length > 0 ? protocol.renderPrompt(rest, []) : []),
    ];
  },
  constrain: () => {
    throw new Error('the table policy writes no demanded forms');
  },
  parseStep,
  formatError: (texts) => {
    const answers = texts.filter((text) => parseStep(text).answer !== null);
    if (answers.length !== 1) return `${answers.length} answers`;
    return texts.every((text) => parseStep(text).malformed === null) ? null : 'malformed step';
  },
};

/** Probabilities of the next piece by the last two pieces (`a|b`) or the last one (`b`). */
export type Table = Record<string, Record<string, number>>;

/**
 * Thinks a letter or two, then searches, looks up or answers `a` or `b`; less sure after a result.
 */
export const AGENT_TABLE: Table = {
  '</user>': { '<think>': 1 },
  '</user>|<think>': { a: 0.9, b: 0.1 },
  '</result>': { '<think>': 1 },
  '</result>|<think>': { a: 0.4, b: 0.3, c: 0.3 },
  '<think>|a': { '</think>': 0.6, d: 0.4 },
  '<think>|b': { '</think>': 1 },
  '<think>|c': { '</think>': 1 },
  'a|d': { '</think>': 1 },
  '</think>': { '<search>': 0.45, '<lookup>': 0.2, '<answer>': 0.35 },
  '<search>': { a: 0.5, b: 0.5 },
  '<search>|a': { '</search>': 1 },
  '<search>|b': { '</search>': 1 },
  '<lookup>': { c: 0.5, d: 0.5 },
  '<lookup>|c': { '</lookup>': 1 },
  '<lookup>|d': { '</lookup>': 1 },
  '<answer>': { '\\boxed{': 1 },
  '\\boxed{': { a: 0.5, b: 0.5 },
  '\\boxed{|a': { '}': 1 },
  '\\boxed{|b': { '}': 1 },
  '}': { '</answer>': 1 },
};

/** The table with some rows replaced. */
export function tableWith(changes: Table): Table {
  return { ...AGENT_TABLE, ...changes };
}

export interface TableSamplerOptions {
  table?: Table;
  contextTokens?: number;
  /** Over so many likeliest pieces a second entropy is measured; left out: it is not. */
  entropyCandidates?: number;
  /** Event-loop turns that a sample call waits, from its number; to shuffle completion orders. */
  delay?: (call: number) => number;
  /** Thrown by the nth sample call instead of sampling. */
  failAt?: { call: number; error: Error };
}

export class TableSampler implements Sampler {
  readonly contextTokens: number;
  readonly table: Table;
  readonly options: TableSamplerOptions;
  /** Sequences that are open now, and the most that ever were. */
  openSequences = 0;
  openSequencesMax = 0;
  /** Sequences that were opened empty, and tokens that were appended: what forks do not need. */
  openCalls = 0;
  appendedTokens = 0;
  sampleCalls = 0;
  sampledTokens = 0;

  constructor(options: TableSamplerOptions = {}) {
    this.options = options;
    this.contextTokens = options.contextTokens ?? 512;
    this.table = options.table ?? AGENT_TABLE;
  }

  open({ policyVersion }: OpenOptions): Sequence {
    this.openCalls++;
    return new TableSequence(this, policyVersion, []);
  }
}

class TableSequence implements Sequence {
  readonly policyVersion: number;
  private readonly sampler: TableSampler;
  private readonly tokens: number[];
  private closed = false;
  private busy = false;

  constructor(sampler: TableSampler, policyVersion: number, tokens: number[]) {
    this.sampler = sampler;
    this.policyVersion = policyVersion;
    this.tokens = tokens;
    sampler.openSequences++;
    sampler.openSequencesMax = Math.max(sampler.openSequencesMax, sampler.openSequences);
  }

  get length(): number {
    return this.tokens.length;
  }

  get contextTokens(): number {
    return this.sampler.contextTokens;
  }

  append(tokens: Uint32Array | readonly number[]): void {
    this.usable();
    const { contextTokens } = this.sampler;
    if (this.length + tokens.length > contextTokens) {
      throw new AppError(
        'context_length_exceeded',
        `${this.length + tokens.length} tokens do not fit a context window of ${contextTokens}`,
      );
    }
    this.tokens.push(...tokens);
    this.sampler.appendedTokens += tokens.length;
  }

  async sample(request: SampleRequest): Promise<SampleResult> {
    this.usable();
    const { sampler } = this;
    const call = sampler.sampleCalls++;
    if (sampler.options.failAt?.call === call) throw sampler.options.failAt.error;
    this.busy = true;
    const drawn: Drawn[] = [];
    let finish: SampleResult['finish'] | null = null;
    for (let turns = sampler.options.delay?.(call) ?? 0; turns > 0; turns--) await nextTurn();
    while (finish === null) {
      await nextTurn();
      if (request.signal?.aborted) finish = 'cancelled';
      else if (drawn.length >= request.maxTokens) finish = 'length';
      else if (this.length >= sampler.contextTokens) finish = 'context';
      else {
        const next = this.draw(request);
        drawn.push(next);
        this.tokens.push(next.token);
        sampler.sampledTokens++;
        request.onTokens?.(pack([next], sampler.options, request.likeliest));
        if (request.stopTokens.includes(next.token)) finish = 'stop';
      }
    }
    this.busy = false;
    return { ...pack(drawn, sampler.options, request.likeliest), finish };
  }

  truncate(length: number): void {
    this.usable();
    this.tokens.length = Math.min(this.tokens.length, length);
  }

  fork(length: number): Sequence {
    this.usable();
    if (length > this.length) throw new Error(`fork at ${length} of ${this.length} tokens`);
    return new TableSequence(this.sampler, this.policyVersion, this.tokens.slice(0, length));
  }

  close(): void {
    if (this.closed) return;
    if (this.busy) throw new Error('closed while sampling');
    this.closed = true;
    this.sampler.openSequences--;
  }

  private usable(): void {
    if (this.closed) throw new Error('the sequence is closed');
    if (this.busy) throw new Error('calls on one sequence overlap');
  }

  private draw({ sampling }: SampleRequest): Drawn {
    const probabilities = nextProbabilities(this.sampler.table, this.tokens);
    const behaviour = heat(probabilities, sampling.temperature);
    let left = uniform(sampling.seed, this.length);
    let token = behaviour.lastIndexOf(Math.max(...behaviour));
    for (let v = 0; v < behaviour.length && sampling.temperature > 0; v++) {
      left -= behaviour[v] as number;
      if (left < 0) {
        token = v;
        break;
      }
    }
    const entropyOf = (some: readonly number[]) =>
      some.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0);
    const falling = [...probabilities].sort((a, b) => b - a);
    return {
      token,
      entropy: entropyOf(probabilities),
      candidateEntropy: entropyOf(falling.slice(0, this.sampler.options.entropyCandidates ?? 0)),
      falling: probabilities.map((p, v) => [v, Math.log(p)] as const).sort((a, b) => b[1] - a[1]),
      logprob: Math.log(probabilities[token] as number),
      behaviour: Math.log(behaviour[token] as number),
    };
  }
}

interface Drawn {
  token: number;
  logprob: number;
  behaviour: number;
  entropy: number;
  candidateEntropy: number;
  /** Tokens with their log-probabilities, the likeliest first. */
  falling: readonly (readonly [number, number])[];
}

function pack(
  drawn: readonly Drawn[],
  { entropyCandidates = 0 }: TableSamplerOptions,
  likeliest = 0,
) {
  const told = drawn.flatMap(({ falling }) => falling.slice(0, likeliest));
  return {
    tokens: Uint32Array.from(drawn, ({ token }) => token),
    logprobs: Float32Array.from(drawn, ({ logprob }) => logprob),
    behaviourLogprobs: Float32Array.from(drawn, ({ behaviour }) => behaviour),
    entropies: Float32Array.from(drawn, ({ entropy }) => entropy),
    ...(entropyCandidates > 0 && {
      candidateEntropies: Float32Array.from(drawn, ({ candidateEntropy }) => candidateEntropy),
    }),
    ...(likeliest > 0 && {
      likeliest: {
        count: likeliest,
        tokens: Uint32Array.from(told, ([token]) => token),
        logprobs: Float32Array.from(told, ([, logprob]) => logprob),
      },
    }),
  };
}

/** The distribution (V) after a list of tokens; a context without a row ends the turn. */
export function nextProbabilities(table: Table, tokens: readonly number[]): number[] {
  const last = PIECES[tokens.at(-1) ?? -1] ?? '';
  const before = PIECES[tokens.at(-2) ?? -1] ?? '';
  const row = table[`${before}|${last}`] ?? table[last] ?? { '<eos>': 1 };
  const probabilities = new Array<number>(PIECES.length).fill(0);
  for (const [piece, p] of Object.entries(row)) probabilities[tokenOf(piece)] = p;
  return probabilities;
}

function heat(probabilities: readonly number[], temperature: number): number[] {
  if (temperature === 1) return [...probabilities];
  if (temperature === 0) {
    const best = probabilities.lastIndexOf(Math.max(...probabilities));
    return probabilities.map((_, v) => Number(v === best));
  }
  const powers = probabilities.map((p) => p ** (1 / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export interface FunctionTool {
  effects?: 'none' | 'writes';
  run: (query: string, signal?: AbortSignal) => string | Promise<string>;
}

/** Runs plain functions as tools and counts their calls. Failures become outcomes. */
export class FunctionTools implements ToolRunner {
  readonly calls: { name: string; arguments: string }[] = [];
  private readonly tools: Record<string, FunctionTool>;

  constructor(tools: Record<string, FunctionTool>) {
    this.tools = tools;
  }

  specs(names: readonly string[]) {
    return names.map((name) => ({
      name,
      description: name,
      parameters: { type: 'object' },
      primaryArgument: 'query',
      effects: this.tools[name]?.effects ?? ('none' as const),
    }));
  }

  has(name: string): boolean {
    return name in this.tools;
  }

  async call(name: string, argumentsJson: string, signal?: AbortSignal) {
    this.calls.push({ name, arguments: argumentsJson });
    const tool = this.tools[name] as FunctionTool;
    const base = { durationMs: 1, effects: tool.effects ?? 'none', served: 'live' } as const;
    try {
      const { query } = JSON.parse(argumentsJson) as { query: string };
      return { ...base, result: await tool.run(query, signal), error: null };
    } catch (thrown) {
      const error = toAppError(thrown);
      const code = error.code === 'internal' ? 'tool_failed' : error.code;
      return { ...base, result: `error: ${error.message}`, error: code };
    }
  }
}

/** `search` and `lookup`, which answer with what they were asked. */
export function echoTools(): FunctionTools {
  return new FunctionTools({
    search: { run: (query) => `found ${query}` },
    lookup: { run: (query) => `entry ${query}` },
  });
}

/** An episode context over the table policy's text. */
export function tableContext(tools: ToolRunner = echoTools()): EpisodeContext {
  const clock = new ManualClock();
  return { tokenizer, protocol, tools, clock, newId: idGenerator(clock) };
}
