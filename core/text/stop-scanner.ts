/**
 * Finds the first stop text in a stream, wherever tokens and pieces cut it. The engine ends a
 * sample by it, and what a client sees goes through it too, so both stop at the same character.
 */

export class StopScanner {
  private readonly stops: readonly string[];
  private held = '';
  private stopped = false;

  constructor(stops: readonly string[]) {
    this.stops = stops;
  }

  get found(): boolean {
    return this.stopped;
  }

  /** Text that is certainly before any stop text; what could be the beginning of one waits. */
  push(text: string): string {
    if (this.stopped) return '';
    this.held += text;
    const found = this.stops.map((stop) => this.held.indexOf(stop)).filter((at) => at !== -1);
    if (found.length > 0) {
      this.stopped = true;
      return this.held.slice(0, Math.min(...found));
    }
    const keep = this.partialLength();
    const out = this.held.slice(0, this.held.length - keep);
    this.held = this.held.slice(this.held.length - keep);
    return out;
  }

  /** What was held back, when the text has ended. */
  flush(): string {
    const out = this.stopped ? '' : this.held;
    this.held = '';
    return out;
  }

  /** Length of the longest end of the held text that a stop text begins with. */
  private partialLength(): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.held.length); length > 0; length--) {
      const tail = this.held.slice(this.held.length - length);
      if (this.stops.some((stop) => stop.startsWith(tail))) return length;
    }
    return 0;
  }
}
