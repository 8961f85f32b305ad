/**
 * What a sample request asks beyond plain drawing, one object a request: how its logits are shaped,
 * which tokens a constraint allows next, and where a stop text ends it. It follows the tokens as
 * they are sampled.
 *
 * A row with penalties or a constraint samples one token a run, because its shape changes with each
 * one; keeping counts as state of the decode loop would save runs for penalties only, at the price
 * of a vocabulary-wide state for everyone.
 */
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { SampledTokens, SampleRequest } from '../ports.ts';
import type { Constraint } from '../records.ts';
import type { Position } from '../text/automaton-run.ts';
import { compileConstraint } from '../text/constraint.ts';
import { StopScanner } from '../text/stop-scanner.ts';
import { StreamDecoder } from '../text/stream-decoder.ts';
import { MaskedAutomaton, TokenTable, type TokenBytes } from '../text/token-mask.ts';
import { shapedSteps, writeShape } from './logit-shape.ts';
import { firstTokens } from './sampled-tokens.ts';

/** The text side of a policy version; nothing is read or built before a request needs it. */
export class VersionText {
  private readonly load: () => TokenBytes;
  private loaded: TokenBytes | null = null;
  private table: TokenTable | null = null;
  private readonly compiled = new Map<string, MaskedAutomaton>();

  constructor(load: () => TokenBytes) {
    this.load = load;
  }

  get vocabulary(): TokenBytes {
    this.loaded ??= this.load();
    return this.loaded;
  }

  /** @throws AppError invalid_request for a schema that cannot be compiled. */
  constraint(constraint: Constraint): MaskedAutomaton {
    const key = JSON.stringify(constraint);
    this.table ??= new TokenTable(this.vocabulary);
    const made =
      this.compiled.get(key) ?? new MaskedAutomaton(compileConstraint(constraint), this.table);
    // The most recently used is last; the first goes.
    this.compiled.delete(key);
    this.compiled.set(key, made);
    const [oldest] = this.compiled.keys();
    if (this.compiled.size > LIMITS.constraintsKeptMax) this.compiled.delete(must(oldest, 'key'));
    return made;
  }
}

/** Writes a row's penalties and shifts, both (V). */
export type WriteShape = (penalties: Float32Array, shifts: Float32Array) => void;

export class RowOptions {
  private readonly request: SampleRequest;
  private readonly automaton: MaskedAutomaton | null;
  private position: Position | null;
  private readonly stops: { decoder: StreamDecoder; scanner: StopScanner } | null;
  private sampled = 0;

  /**
   * @param text null where no text layer is loaded: then constraints and stop texts are our bug.
   * @throws AppError invalid_request for options that do not fit each other or the vocabulary.
   */
  constructor(request: SampleRequest, vocabularySize: number, text: VersionText | null) {
    this.request = request;
    const { sampling, stopTexts = [] } = request;
    requireTokens(sampling.logitBias ?? {}, vocabularySize);
    const { constraint, minTokens = 0 } = sampling;
    if (constraint !== undefined && minTokens > 0) {
      throw new AppError('invalid_request', 'min_tokens does not go with an output form');
    }
    const layer = () => must(text, 'the text layer of a version');
    this.automaton = constraint === undefined ? null : layer().constraint(constraint);
    this.position = this.automaton?.start() ?? null;
    this.stops =
      stopTexts.length === 0
        ? null
        : {
            decoder: new StreamDecoder(layer().vocabulary),
            scanner: new StopScanner(stopTexts),
          };
  }

  /** Tokens that the request may still sample. */
  get left(): number {
    return this.request.maxTokens - this.sampled;
  }

  /** Tokens that one run may sample; null: as many as it likes, with untouched logits. */
  get shapedSteps(): number | null {
    return shapedSteps(this.request.sampling, this.sampled);
  }

  /** `tokens`: all of the sequence. Null when the logits stay as they are. */
  shape(tokens: readonly number[]): WriteShape | null {
    if (this.shapedSteps === null) return null;
    const { sampling, stopTokens } = this.request;
    const allowed = this.position && must(this.automaton, 'automaton').allowed(this.position);
    const row = { sampling, stopTokens, tokens, sampled: this.sampled, allowed };
    return (penalties, shifts) => writeShape(row, penalties, shifts);
  }

  /**
   * Follows newly sampled tokens. The result ends with the token that completes a stop text or the
   * constraint; `stopped` says so.
   */
  take<T extends SampledTokens & { stopped: boolean }>(row: T): T {
    let count = 0;
    let ended = false;
    while (count < row.tokens.length && !ended) {
      ended = this.follow(row.tokens[count] as number);
      count++;
    }
    this.sampled += count;
    if (count === row.tokens.length) return ended ? { ...row, stopped: true } : row;
    return { ...row, ...firstTokens(row, count), stopped: true };
  }

  /** Whether the sample ends with this token, for a reason that the decode graph does not know. */
  private follow(token: number): boolean {
    if (this.stops !== null) {
      this.stops.scanner.push(this.stops.decoder.push([token]));
      if (this.stops.scanner.found) return true;
    }
    if (this.position === null) return false;
    const next = must(this.automaton, 'automaton').next(this.position, token);
    this.position = must(next, `a position after the allowed token ${token}`);
    return this.position.ways.length === 0;
  }
}

function requireTokens(bias: Readonly<Record<string, number>>, vocabularySize: number): void {
  for (const token of Object.keys(bias)) {
    if (/^\d+$/.test(token) && Number(token) < vocabularySize) continue;
    throw new AppError(
      'invalid_request',
      `logit_bias: ${token} is no token; this policy has the tokens 0 to ${vocabularySize - 1}`,
      { param: 'logit_bias' },
    );
  }
}
