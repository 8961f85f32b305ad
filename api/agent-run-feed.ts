/**
 * The events of one agent run. There is no list of them: every event is a position on the run's
 * path, and a follower is a place between two positions, so that it may be slow, late or come back
 * after a restart of the server and still gets each thing once, and nobody's slowness costs memory.
 *
 * Positions, which are the ids of the events: `0` the run was created; `3` the step of index 2 is
 * complete (and durable); `3.17` text of the step of index 3 up to its token 17. A run that waits
 * for its client after three steps says so at `3.1`, where a tool step, which has no text in
 * pieces, comes next. The end of a run with four steps is at `5`. A step that a new process samples
 * again has the same tokens, so its text goes on where the follower was.
 */
import { AppError } from '../core/errors.ts';
import type { AgentRunRecord, StepRecord } from '../core/records.ts';
import { StreamDecoder } from '../core/text/stream-decoder.ts';
import type { Tokenizer } from '../core/text/types.ts';
import { createdView, runView } from './agent-run-view.ts';
import type { Schemas } from './handlers.ts';
import { stepView } from './views.ts';

export type AgentRunEvent = Schemas['AgentRunEvent'];

export interface PlacedEvent {
  id: string;
  event: AgentRunEvent;
}

/** Behind `tokens` tokens of the step of this index; all before is known to the follower. */
export interface Position {
  step: number;
  tokens: number;
}

/** `chars`: of the step's text that were sent; null: not known yet. */
type Place = Position & { chars: number | null };

type Text = Pick<Tokenizer, 'tokenBytes'>;

interface OpenStep {
  index: number;
  tokens: number[];
  text: string;
  decoder: StreamDecoder;
}

/** The id of an event as a position; the contract has checked its form. */
export function positionOf(id: string): Position {
  const [step = '', tokens = '0'] = id.split('.');
  return { step: Number(step), tokens: Number(tokens) };
}

export class RunFeed {
  /** Those that are durable. */
  readonly steps: StepRecord[];
  private readonly record: () => AgentRunRecord;
  private text: Text | null = null;
  private open: OpenStep | null = null;
  private left = false;
  private wakeups: (() => void)[] = [];

  /** `record`: the run as it is now; of one in `requires_action` or ended all steps are here. */
  constructor(record: () => AgentRunRecord, steps: readonly StepRecord[] = []) {
    this.record = record;
    this.steps = [...steps];
  }

  /** Where the newest event lies while the run waits. */
  get waitingPosition(): Position {
    return { step: this.steps.length, tokens: 1 };
  }

  /** The run works; its tokens are read by this tokenizer. */
  begin(text: Text): void {
    this.text = text;
    this.open = null;
  }

  /** Tokens of the step that is being sampled. */
  sampled(index: number, tokens: Uint32Array): void {
    if (this.text === null) return;
    if (this.open?.index !== index) {
      this.open = { index, tokens: [], text: '', decoder: new StreamDecoder(this.text) };
    }
    this.open.text += this.open.decoder.push(tokens);
    for (const token of tokens) this.open.tokens.push(token);
    this.changed();
  }

  /** Steps that have become durable. */
  add(steps: readonly StepRecord[]): void {
    this.steps.push(...steps);
    this.changed();
  }

  /** The record has changed. */
  changed(): void {
    for (const wakeup of this.wakeups.splice(0)) wakeup();
  }

  /** This process is done with the run, which is not ended: followers are told to come back. */
  leave(): void {
    this.left = true;
    this.changed();
  }

  /**
   * Events behind a position (null: all), then new ones as they come, to the end of the run; with
   * `endsAtWait` to where the run waits for its client. Throws not_ready when the server stops.
   */
  async *follow(
    after: Position | null,
    signal: AbortSignal,
    options: { endsAtWait: boolean },
  ): AsyncGenerator<PlacedEvent> {
    let place: Place | null = after && { ...after, chars: after.tokens === 0 ? 0 : null };
    while (!signal.aborted) {
      const next = this.next(place);
      if (next !== null) {
        place = next.place;
        if (next.event !== null) yield { id: idOf(place), event: next.event };
        continue;
      }
      if (this.isOver(options)) return;
      if (this.left) {
        throw new AppError('not_ready', 'the server is stopping; the events can be resumed');
      }
      await this.change(signal);
    }
  }

  /** Nothing comes behind the newest event. */
  private isOver({ endsAtWait }: { endsAtWait: boolean }): boolean {
    const { status, endedAt } = this.record();
    return endedAt !== null || (endsAtWait && status === 'requires_action');
  }

  private next(place: Place | null): { place: Place; event: AgentRunEvent | null } | null {
    const record = this.record();
    if (place === null) {
      const event = { type: 'run.created' as const, run: createdView(record) };
      return { place: { step: 0, tokens: 0, chars: 0 }, event };
    }
    const step = this.steps[place.step];
    if (step !== undefined) return this.nextOfStep(place, step);
    const { open } = this;
    if (open?.index === place.step && open.tokens.length > place.tokens) {
      return delta(place, open, this.charsAt(place, open.tokens));
    }
    const last = place.step === this.steps.length;
    if (record.status === 'requires_action' && last && place.tokens === 0) {
      const event = { type: 'run.requires_action' as const, run: this.view(record) };
      return { place: { ...this.waitingPosition, chars: null }, event };
    }
    if (record.endedAt === null || place.step > this.steps.length) return null;
    const event = { type: endType(record), run: this.view(record) };
    return { place: { step: this.steps.length + 1, tokens: 0, chars: 0 }, event };
  }

  private nextOfStep(
    place: Place,
    step: StepRecord,
  ): { place: Place; event: AgentRunEvent | null } {
    const { tokens, text } = step;
    if (step.kind === 'policy' && place.tokens < tokens.length) {
      return delta(place, { tokens, text }, this.charsAt(place, tokens));
    }
    const event = { type: 'step.completed' as const, step: stepView(step) };
    return { place: { step: place.step + 1, tokens: 0, chars: 0 }, event };
  }

  /** Null: the text layer of the policy is not at hand. */
  private charsAt(place: Place, tokens: ArrayLike<number>): number | null {
    if (place.chars !== null || this.text === null) return place.chars;
    const known = Array.prototype.slice.call(tokens, 0, place.tokens) as number[];
    return new StreamDecoder(this.text).push(known).length;
  }

  private view(record: AgentRunRecord): Schemas['AgentRun'] {
    return runView(record, this.steps, { tokens: false });
  }

  private change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', done);
        resolve();
      };
      signal.addEventListener('abort', done, { once: true });
      this.wakeups.push(done);
    });
  }
}

/** The text behind a place; without knowing where that is none, as the whole step follows. */
function delta(
  place: Place,
  { tokens, text }: { tokens: ArrayLike<number>; text: string },
  chars: number | null,
): { place: Place; event: AgentRunEvent | null } {
  const rest = chars === null ? '' : text.slice(chars);
  return {
    place: { step: place.step, tokens: tokens.length, chars: chars === null ? null : text.length },
    event: rest === '' ? null : { type: 'step.delta', text: rest },
  };
}

function idOf({ step, tokens }: Position): string {
  return tokens === 0 ? String(step) : `${step}.${tokens}`;
}

function endType({ status }: AgentRunRecord): 'run.completed' | 'run.failed' | 'run.cancelled' {
  if (status === 'cancelled') return 'run.cancelled';
  return status === 'failed' ? 'run.failed' : 'run.completed';
}
