/**
 * A pushdown automaton over bytes and tokens: what a constraint is compiled to. States have edges
 * by byte, by token and by nothing, and calls of rules (a rule is named by its first state), which
 * come back when the rule ends. It is nondeterministic; automaton-run.ts follows all ways at once.
 *
 * Knows neither JSON nor vocabularies.
 */
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';

export interface AutomatonState {
  readonly bytes: { low: number; high: number; to: number }[];
  readonly tokens: { token: number; to: number }[];
  readonly empty: number[];
  readonly calls: { rule: number; to: number }[];
  /** A rule may end here. */
  end: boolean;
}

const ENCODER = new TextEncoder();

export class Automaton {
  readonly states: AutomatonState[] = [];

  /** @throws AppError invalid_request when there are too many. */
  state(): number {
    if (this.states.length >= LIMITS.constraintStatesMax) {
      throw new AppError(
        'invalid_request',
        `the output form needs more than ${LIMITS.constraintStatesMax} states; make it smaller`,
      );
    }
    return this.states.push({ bytes: [], tokens: [], empty: [], calls: [], end: false }) - 1;
  }

  endAt(state: number): void {
    this.at(state).end = true;
  }

  /** One byte of the range; a new state when no target is given. Returns the target. */
  range(from: number, low: number, high: number, to = this.state()): number {
    this.at(from).bytes.push({ low, high, to });
    return to;
  }

  token(from: number, token: number, to: number): void {
    this.at(from).tokens.push({ token, to });
  }

  empty(from: number, to: number): void {
    this.at(from).empty.push(to);
  }

  /** Goes through a rule; returns where it comes back. */
  call(from: number, rule: number, to = this.state()): number {
    this.at(from).calls.push({ rule, to });
    return to;
  }

  /** The bytes of a text, one after the other. */
  text(from: number, text: string, end?: number): number {
    const bytes = ENCODER.encode(text);
    if (bytes.length === 0) {
      if (end === undefined) return from;
      this.empty(from, end);
      return end;
    }
    let at = from;
    bytes.forEach((byte, i) => {
      at = this.range(at, byte, byte, i === bytes.length - 1 ? end : undefined);
    });
    return at;
  }

  /** Between `min` and `max` times (null: any number) what `once` adds. */
  repeat(from: number, min: number, max: number | null, once: (from: number) => number): number {
    let at = from;
    for (let i = 0; i < min; i++) at = once(at);
    const to = this.state();
    this.empty(at, to);
    if (max === null) this.empty(once(at), at);
    for (let i = min; i < (max ?? min); i++) {
      at = once(at);
      this.empty(at, to);
    }
    return to;
  }

  /**
   * For each state the fewest calls inside one another that an end of its rule needs; Infinity when
   * the end cannot be reached at all.
   */
  depths(): number[] {
    const depths = new Array<number>(this.states.length).fill(Infinity);
    const of = (state: number) => depths[state] as number;
    // Edges mostly go to later states, so a pass from the back settles nearly everything. Each
    // further pass settles at least one state, so it ends.
    for (let changed = true; changed;) {
      changed = false;
      for (let s = this.states.length - 1; s >= 0; s--) {
        const { bytes, tokens, empty, calls, end } = this.at(s);
        let depth = end ? 0 : Infinity;
        for (const { to } of bytes) depth = Math.min(depth, of(to));
        for (const { to } of tokens) depth = Math.min(depth, of(to));
        for (const to of empty) depth = Math.min(depth, of(to));
        for (const { rule, to } of calls) {
          depth = Math.min(depth, Math.max(1 + of(rule), of(to)));
        }
        if (depth < of(s)) {
          depths[s] = depth;
          changed = true;
        }
      }
    }
    return depths;
  }

  private at(state: number): AutomatonState {
    return this.states[state] as AutomatonState;
  }
}
