/** Reads server-sent events, in the format of the WHATWG standard, from the body of a response. */

export interface ServerEvent {
  /** Null where no `event` line came. */
  event: string | null;
  /** Null where no `id` line came. */
  id: string | null;
  data: string;
}

/** Ends with the stream; leaving early cancels it. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let lines: string[] = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      // A carriage return at the end may be half of a line end.
      const whole = rest.split(/\r\n|\n|\r(?!$)/);
      rest = whole.pop() ?? '';
      for (const line of whole) {
        if (line !== '') {
          lines.push(line);
          continue;
        }
        const event = eventOf(lines);
        lines = [];
        if (event !== null) yield event;
      }
      // By the standard an event without an empty line after it is not one.
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Null without data, as of a comment that keeps the connection alive. */
function eventOf(lines: readonly string[]): ServerEvent | null {
  const data: string[] = [];
  let event: string | null = null;
  let id: string | null = null;
  for (const line of lines) {
    const [, name, value] = /^([^:]*)(?::\s?)?(.*)$/s.exec(line) ?? [];
    if (name === 'data') data.push(value ?? '');
    else if (name === 'event') event = value ?? '';
    else if (name === 'id') id = value ?? '';
  }
  return data.length === 0 ? null : { event, id, data: data.join('\n') };
}
