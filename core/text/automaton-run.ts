/**
 * Follows an automaton, all its ways at once. A position is the set of ways that are open after
 * some input, each a state and the stack of calls around it. Positions are made once and remember
 * what follows them, so that after a while the automaton runs like a table.
 *
 * Calls nest to a bound. Ways that could not end within it are never taken, so no position that is
 * reached is a dead end.
 */
import { must } from '../assert.ts';
import { AppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { Automaton, AutomatonState } from './automaton.ts';

/** Where a call comes back to. Equal stacks are the same object. */
interface Frame {
  readonly id: number;
  readonly to: number;
  readonly around: Frame | null;
  readonly depth: number;
  readonly inner: Map<number, Frame>;
}

interface Way {
  readonly state: number;
  readonly frame: Frame | null;
}

export class Position {
  /** Only ways that take a byte or a token; the others are followed to their end. */
  readonly ways: readonly Way[];
  /** The input may end here. */
  readonly isEnd: boolean;
  readonly afterByte = new Map<number, Position | null>();
  /** Tokens that may come next, a bit each; made by token-mask.ts. */
  mask: Uint32Array | null = null;

  constructor(ways: readonly Way[], isEnd: boolean) {
    this.ways = ways;
    this.isEnd = isEnd;
  }
}

export class AutomatonRun {
  private readonly states: readonly AutomatonState[];
  private readonly depths: readonly number[];
  private readonly first: number;
  private readonly outer = new Map<number, Frame>();
  private frames = 0;
  private positions = new Map<string, Position>();

  /** @throws AppError invalid_request when nothing finite fits. */
  constructor(automaton: Automaton, first: number) {
    this.states = automaton.states;
    this.depths = automaton.depths();
    this.first = first;
    if ((this.depths[first] as number) > LIMITS.constraintDepthMax) {
      throw new AppError('invalid_request', 'the output form allows nothing that comes to an end');
    }
  }

  start(): Position {
    return must(this.closure([{ state: this.first, frame: null }]), 'checked by the constructor');
  }

  /** The position after one more byte; null when it does not fit. */
  byte(position: Position, byte: number): Position | null {
    const known = position.afterByte.get(byte);
    if (known !== undefined) return known;
    const next: Way[] = [];
    for (const { state, frame } of position.ways) {
      for (const { low, high, to } of this.stateAt(state).bytes) {
        if (byte >= low && byte <= high) next.push({ state: to, frame });
      }
    }
    const found = this.closure(next);
    position.afterByte.set(byte, found);
    return found;
  }

  token(position: Position, token: number): Position | null {
    const next: Way[] = [];
    for (const { state, frame } of position.ways) {
      for (const edge of this.stateAt(state).tokens) {
        if (edge.token === token) next.push({ state: edge.to, frame });
      }
    }
    return this.closure(next);
  }

  /** The tokens that have edges of their own here. */
  tokensAt(position: Position): number[] {
    return position.ways.flatMap(({ state }) => this.stateAt(state).tokens.map((e) => e.token));
  }

  /** Follows what takes no input. */
  private closure(from: readonly Way[]): Position | null {
    const seen = new Set<string>();
    const ways: Way[] = [];
    let isEnd = false;
    const open = [...from];
    for (let way = open.pop(); way !== undefined; way = open.pop()) {
      const { state, frame } = way;
      const key = `${state}.${frame?.id ?? 0}`;
      const depth = frame?.depth ?? 0;
      if (depth + (this.depths[state] as number) > LIMITS.constraintDepthMax) continue;
      if (seen.has(key)) continue;
      seen.add(key);
      if (seen.size > LIMITS.constraintWaysMax) {
        throw new AppError('invalid_request', 'the schema can be read in too many ways at once', {
          param: 'response_format',
        });
      }
      const { bytes, tokens, empty, calls, end } = this.stateAt(state);
      if (bytes.length + tokens.length > 0) ways.push(way);
      for (const to of empty) open.push({ state: to, frame });
      for (const { rule, to } of calls) {
        if (depth + (this.depths[to] as number) > LIMITS.constraintDepthMax) continue;
        open.push({ state: rule, frame: this.enter(frame, to) });
      }
      if (!end) continue;
      if (frame === null) isEnd = true;
      else open.push({ state: frame.to, frame: frame.around });
    }
    return ways.length === 0 && !isEnd ? null : this.position(ways, isEnd);
  }

  private position(ways: readonly Way[], isEnd: boolean): Position {
    const names = ways.map(({ state, frame }) => `${state}.${frame?.id ?? 0}`).sort();
    const key = `${isEnd ? '!' : ''}${names.join()}`;
    const known = this.positions.get(key);
    if (known !== undefined) return known;
    if (this.positions.size >= LIMITS.constraintPositionsMax) this.positions.clear();
    const made = new Position(ways, isEnd);
    this.positions.set(key, made);
    return made;
  }

  private enter(around: Frame | null, to: number): Frame {
    const inner = around?.inner ?? this.outer;
    const known = inner.get(to);
    if (known !== undefined) return known;
    const depth = (around?.depth ?? 0) + 1;
    const made = { id: ++this.frames, to, around, depth, inner: new Map<number, Frame>() };
    inner.set(to, made);
    return made;
  }

  private stateAt(state: number): AutomatonState {
    return this.states[state] as AutomatonState;
  }
}
