/** Reads server-sent events from a response body. Knows nothing of what the events mean. */
import { AppError } from '../../core/errors.ts';

/** The largest event is a training run with its settings: some kB. */
const FRAME_CHARS_MAX = 4 * 1024 * 1024;

export interface ServerSentEvent {
  event: string;
  /** Its place in the stream, where it has one. */
  id: string | null;
  data: string;
}

/**
 * The events of a stream in order; comments are skipped.
 * @throws AppError internal on a huge frame.
 */
export async function* serverSentEvents(
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder();
  let buffer = '';
  for await (const bytes of body) {
    buffer += decoder.decode(bytes, { stream: true });
    const frames = buffer.split('\n\n');
    buffer = frames.pop() ?? '';
    if (buffer.length > FRAME_CHARS_MAX) {
      throw new AppError('internal', `an event is longer than ${FRAME_CHARS_MAX} characters`);
    }
    for (const frame of frames) {
      const event = parseFrame(frame);
      if (event !== null) yield event;
    }
  }
}

function parseFrame(frame: string): ServerSentEvent | null {
  let event = 'message';
  let id: string | null = null;
  const data: string[] = [];
  for (const line of frame.split('\n')) {
    const at = line.indexOf(':');
    const [name, value] = [line.slice(0, at), line.slice(at + 1).replace(/^ /, '')];
    if (name === 'event') event = value;
    if (name === 'id') id = value;
    if (name === 'data') data.push(value);
  }
  return data.length === 0 ? null : { event, id, data: data.join('\n') };
}
