/**
 * A pushdown automaton over bytes and tokens: what a constraint is compiled to. States have edges
 * by byte, by token and by nothing, and calls of rules (a rule is named by its first state), which
 * come back when the rule ends. It is nondeterministic; automaton-run.ts follows all ways at once.
 *
 * Knows neither JSON nor vocabularies.
 */
import { CompileBudget } from './compile-budget.ts';

interface Call {
  readonly rule: number;
  readonly to: number;
}

export interface AutomatonState {
  readonly bytes: { low: number; high: number; to: number }[];
  readonly tokens: { token: number; to: number }[];
  readonly empty: number[];
  readonly calls: Call[];
  /** A rule may end here. */
  end: boolean;
}

/** In flat lists: there is one for each edge of a large automaton. */
interface Links {
  readonly from: number[];
  readonly call: (Call | null)[];
  readonly before: number[];
}

const ENCODER = new TextEncoder();

export class Automaton {
  readonly states: AutomatonState[] = [];
  readonly budget: CompileBudget;

  constructor(budget = new CompileBudget()) {
    this.budget = budget;
  }

  /** @throws AppError invalid_request when there are too many. */
  state(): number {
    this.budget.takeState();
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
    const { last, links } = this.leadingTo();
    let level = this.states.flatMap(({ end }, state) => (end ? [state] : []));
    // No edge leads to a lower depth, so the depths are settled in their order, each state once
    // (Knuth 1977, a generalisation of Dijkstra's algorithm).
    for (let depth = 0; level.length > 0; depth++) {
      const next: number[] = [];
      for (let state = level.pop(); state !== undefined; state = level.pop()) {
        if (depths[state] !== Infinity) continue;
        depths[state] = depth;
        for (let at = last[state] as number; at !== -1; at = links.before[at] as number) {
          const from = links.from[at] as number;
          const call = links.call[at];
          if (!call) level.push(from);
          else if (depths[call.to] === Infinity || depths[call.rule] === Infinity) continue;
          else (depths[call.rule] === depth ? next : level).push(from);
        }
      }
      level = next;
    }
    return depths;
  }

  /** Edges and calls by the states that they lead to: `last` of each state, the others before. */
  private leadingTo(): { last: Int32Array; links: Links } {
    const last = new Int32Array(this.states.length).fill(-1);
    const links: Links = { from: [], call: [], before: [] };
    const add = (to: number, from: number, call: Call | null) => {
      links.before.push(last[to] as number);
      links.call.push(call);
      last[to] = links.from.push(from) - 1;
    };
    for (let from = 0; from < this.states.length; from++) {
      const { bytes, tokens, empty, calls } = this.at(from);
      for (const { to } of bytes) add(to, from, null);
      for (const { to } of tokens) add(to, from, null);
      for (const to of empty) add(to, from, null);
      for (const call of calls) {
        add(call.rule, from, call);
        add(call.to, from, call);
      }
    }
    return { last, links };
  }

  private at(state: number): AutomatonState {
    return this.states[state] as AutomatonState;
  }
}
