/**
 * Where a command speaks: results on stdout (text, or with `--json` one JSON object a line), and on
 * stderr what is said along the way: a bar on a terminal, plain lines elsewhere, nothing with
 * `--json` but warnings and errors. Knows nothing of what the commands do.
 */
import { once } from 'node:events';
import type { Writable } from 'node:stream';
import type { AppError } from '../../core/errors.ts';
import type { Logger } from '../../core/log.ts';
import { duration } from './text.ts';

export interface OutputOptions {
  out: Writable;
  err: Writable & { isTTY?: boolean; columns?: number };
  json: boolean;
}

/** A bar is drawn so often at most; off a terminal, lines come so far apart at least. */
const DRAW_MS = 100;
const LINE_MS = 5_000;
const BAR_CELLS = 24;
const LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

export class Output {
  readonly json: boolean;
  private readonly options: OutputOptions;
  private drawn = false;

  constructor(options: OutputOptions) {
    this.options = options;
    this.json = options.json;
  }

  get isTerminal(): boolean {
    return this.options.err.isTTY === true && !this.json;
  }

  /** A result for people; not with `--json`. */
  text(text: string): Promise<void> {
    return this.json ? Promise.resolve() : this.print(`${text}\n`);
  }

  /** A result for programs; only with `--json`. */
  record(object: object): Promise<void> {
    return this.json ? this.print(`${JSON.stringify(object)}\n`) : Promise.resolve();
  }

  /** What a person may want to know besides the results; not with `--json`. */
  note(text: string): void {
    if (!this.json) this.say(text);
  }

  warn(text: string): void {
    this.say(this.json ? JSON.stringify({ warning: text }) : `ramify: ${text}`);
  }

  error({ code, message, param, stack }: AppError): void {
    if (this.json) this.say(JSON.stringify({ error: { code, message, param } }));
    else this.say(`ramify: ${code === 'internal' ? (stack ?? message) : message}`);
  }

  /** What the parts of the server log, in the words of their messages. */
  logger(level: (typeof LEVELS)[number]): Logger {
    const log =
      (at: (typeof LEVELS)[number]) => (fields: Record<string, unknown>, text: string) => {
        if (LEVELS.indexOf(at) < LEVELS.indexOf(level)) return;
        const details = at === 'debug' || at === 'info' ? ` ${JSON.stringify(fields)}` : '';
        this.warn(`${text}${details}`);
      };
    return { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
  }

  /** Replaces the bar, or draws it for the first time. */
  draw(line: string): void {
    const width = (this.options.err.columns ?? 80) - 1;
    this.options.err.write(`\r\u001b[K${line.slice(0, width)}`);
    this.drawn = true;
  }

  /** Takes the bar away. */
  clear(): void {
    if (this.drawn) this.options.err.write('\r\u001b[K');
    this.drawn = false;
  }

  private say(text: string): void {
    this.clear();
    this.options.err.write(`${text}\n`);
  }

  /** Waits where the reader is slow, so that memory stays bounded. */
  private async print(text: string): Promise<void> {
    this.clear();
    if (!this.options.out.write(text)) await once(this.options.out, 'drain');
  }
}

/**
 * How far something is, with the time that is left at the speed so far. The total may be unknown
 * (null): then it counts.
 */
export class Progress {
  private readonly output: Output;
  private readonly label: string;
  private readonly total: number | null;
  private readonly startedAt = performance.now();
  private shownAt = -Infinity;

  constructor(output: Output, label: string, total: number | null) {
    this.output = output;
    this.label = label;
    this.total = total;
  }

  /** `always`: a line of its own off a terminal, however soon after the last one. */
  update(done: number, figures = '', always = false): void {
    if (this.output.json) return;
    const now = performance.now();
    const finished = done === this.total;
    const due = now - this.shownAt >= (this.output.isTerminal ? DRAW_MS : LINE_MS);
    if (!due && !finished && !always) return;
    this.shownAt = now;
    const line = this.line(done, figures, now);
    if (this.output.isTerminal) this.output.draw(line);
    else this.output.note(line);
  }

  /** To be called at the end, whatever it is. */
  close(): void {
    this.output.clear();
  }

  private line(done: number, figures: string, now: number): string {
    const { label, total } = this;
    const tail = figures === '' ? '' : `  ${figures}`;
    if (total === null) return `${label} ${done.toLocaleString('en')}${tail}`;
    const share = total === 0 ? 1 : Math.min(1, done / total);
    const cells = Math.round(share * BAR_CELLS);
    const bar = this.output.isTerminal
      ? ` [${'#'.repeat(cells)}${'.'.repeat(BAR_CELLS - cells)}]`
      : '';
    const left =
      done === 0 || done >= total ? null : ((now - this.startedAt) / done) * (total - done);
    const eta = left === null ? '' : `  ${duration(left)} left`;
    return `${label}${bar} ${done}/${total}${eta}${tail}`;
  }
}
