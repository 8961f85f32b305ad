/**
 * What the clients of bench/load.ts share: one HTTP exchange over a kept connection, in which a
 * server that is busy (429, 503) is asked again after its Retry-After, and a tally of everything
 * that came back. Anything else than an answer or such a refusal is a fault, and so is a refusal
 * that does not say when to come back. Leaner than `fetch`, as 500 clients share the machine with
 * the server that they measure.
 */
import { setMaxListeners } from 'node:events';
import { Agent, request, type IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError, toAppError } from '../core/errors.ts';

/** Streams say something every LIMITS.heartbeatMs; an answer may wait for its turn. */
const SILENCE_MS = 60_000;
const FAULTS_KEPT = 20;
/** Before a client goes on that met a fault. */
const FAULT_PAUSE_MS = 1_000;

export interface Asking {
  body?: unknown;
  headers?: Readonly<Record<string, string>>;
}

export class Tally {
  /** Answers by status; refusals inside a stream by their code. */
  readonly answers = new Map<string, number>();
  readonly faults: string[] = [];
  faultCount = 0;
  openStreams = 0;
  endedStreams = 0;
  pieces = 0;
  tokens = 0;

  answer(status: string): void {
    this.answers.set(status, (this.answers.get(status) ?? 0) + 1);
  }

  fault(text: string): void {
    this.faultCount++;
    if (this.faults.length < FAULTS_KEPT) this.faults.push(text);
  }
}

export class LoadClient {
  readonly tally = new Tally();
  /** Aborts at the end of the load; what fails from then on is no fault. */
  readonly signal: AbortSignal;
  private readonly url: string;
  private readonly agent = new Agent({ keepAlive: true });

  constructor(url: string, signal: AbortSignal) {
    this.url = url;
    this.signal = signal;
    // Every request under way listens to it.
    setMaxListeners(0, signal);
  }

  /** Works again and again until the end, after a fault too. */
  async repeat(work: () => Promise<void>): Promise<void> {
    while (!this.signal.aborted) {
      if (!(await this.once(work))) await this.pause(FAULT_PAUSE_MS);
    }
  }

  /** Whether the work was done; its failure is a fault, and is not thrown. */
  async once(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (thrown) {
      if (!this.signal.aborted) this.tally.fault(toAppError(thrown).message);
      return false;
    }
  }

  /** An answer whose body is not read yet. @throws AppError internal on any fault */
  async ask(method: string, path: string, asking: Asking = {}): Promise<IncomingMessage> {
    for (;;) {
      const response = await this.exchange(method, path, asking);
      const { statusCode = 0, headers } = response;
      this.tally.answer(String(statusCode));
      if (statusCode >= 200 && statusCode < 300) return response;
      const text = await textOf(response);
      const seconds = headers['retry-after'];
      const refused = statusCode === 429 || statusCode === 503;
      if (!refused || seconds === undefined || !/^\d+$/.test(seconds)) {
        throw new AppError('internal', `${method} ${path}: ${statusCode} ${text}`);
      }
      await this.pause(Number(seconds) * 1000);
      this.signal.throwIfAborted();
    }
  }

  async json<T>(method: string, path: string, asking?: Asking): Promise<T> {
    return JSON.parse(await textOf(await this.ask(method, path, asking))) as T;
  }

  async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.signal }).catch(() => undefined);
  }

  close(): void {
    this.agent.destroy();
  }

  private async exchange(method: string, path: string, asking: Asking): Promise<IncomingMessage> {
    const body = asking.body === undefined ? undefined : JSON.stringify(asking.body);
    const headers = {
      ...(body !== undefined && {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
      }),
      ...asking.headers,
    };
    const options = { method, headers, agent: this.agent, signal: this.signal };
    for (;;) {
      const sent = request(this.url + path, options);
      sent.setTimeout(SILENCE_MS, () =>
        sent.destroy(new Error(`${method} ${path}: silent for ${SILENCE_MS} ms`)),
      );
      try {
        return await new Promise((resolve, reject) => {
          sent.once('response', resolve).once('error', reject).end(body);
        });
      } catch (thrown) {
        // The server may close a kept connection just when it is used again; Node's documents say
        // to ask again.
        const closed = (thrown as NodeJS.ErrnoException).code === 'ECONNRESET';
        if (!(closed && sent.reusedSocket)) throw thrown;
      }
    }
  }
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  return text;
}
