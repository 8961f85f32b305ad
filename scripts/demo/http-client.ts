/**
 * A small client of the server's own calls (agent runs, feedback, the log, training), typed from
 * the contract. Every call has a time limit, and none is repeated: a failure is to be counted, not
 * hidden.
 */
import { AppError } from '../../core/errors.ts';
import type { components } from '../../api/contract/openapi.gen.ts';
import { serverSentEvents } from './event-stream.ts';

export type Schemas = components['schemas'];

/** A question on a machine that also trains; the longest seen took a few seconds. */
export const REQUEST_MS = 120_000;

export class HttpClient {
  readonly url: string;
  private readonly signal: AbortSignal;

  /** `signal` ends every call. */
  constructor(url: string, signal: AbortSignal) {
    this.url = url;
    this.signal = signal;
  }

  createAgentRun(body: Schemas['AgentRunRequest']): Promise<Schemas['AgentRun']> {
    return this.call('POST', '/v1/agent/runs', body);
  }

  trajectory(id: string): Promise<Schemas['Trajectory']> {
    return this.call('GET', `/v1/trajectories/${encodeURIComponent(id)}`);
  }

  createFeedback(body: Schemas['FeedbackRequest']): Promise<Schemas['Feedback']> {
    return this.call('POST', '/v1/feedback', body);
  }

  retrain(body: Schemas['RetrainRequest']): Promise<Schemas['TrainingRun']> {
    return this.call('POST', '/v1/admin/retrain', body);
  }

  /** Newest first. */
  trainingRuns(): Promise<Schemas['TrainingRunList']> {
    return this.call('GET', '/v1/admin/training-runs?limit=100');
  }

  rollback(): Promise<Schemas['Policy']> {
    return this.call('POST', '/v1/admin/policies/rollback');
  }

  /** How many tasks are stored, up to one page. */
  tasks(): Promise<Schemas['TaskList']> {
    return this.call('GET', '/v1/tasks?limit=100');
  }

  /** Tasks, one JSON object a line. */
  async importTasks(lines: string): Promise<void> {
    const path = '/v1/tasks/import';
    const response = await fetch(this.url + path, {
      method: 'POST',
      signal: this.limited(REQUEST_MS),
      headers: { 'content-type': 'application/x-ndjson' },
      body: lines,
    });
    if (!response.ok) throw await refusal('POST', path, response);
    await response.arrayBuffer();
  }

  policies(): Promise<Schemas['PolicyList']> {
    return this.call('GET', '/v1/admin/policies');
  }

  /** The events of a training run to its end, at most `timeoutMs` long. */
  async *trainingEvents(
    id: string,
    timeoutMs: number,
  ): AsyncGenerator<Schemas['TrainingRunEvent']> {
    const path = `/v1/admin/training-runs/${encodeURIComponent(id)}/events`;
    const response = await fetch(this.url + path, { signal: this.limited(timeoutMs) });
    if (!response.ok || response.body === null) throw await refusal('GET', path, response);
    for await (const { event, data } of serverSentEvents(response.body)) {
      if (event === 'error') throw new AppError('internal', `${path}: ${data.slice(0, 500)}`);
      yield JSON.parse(data) as Schemas['TrainingRunEvent'];
    }
  }

  private async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(this.url + path, {
      method,
      signal: this.limited(REQUEST_MS),
      ...(body !== undefined && {
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      }),
    });
    if (!response.ok) throw await refusal(method, path, response);
    return (await response.json()) as T;
  }

  private limited(timeoutMs: number): AbortSignal {
    return AbortSignal.any([this.signal, AbortSignal.timeout(timeoutMs)]);
  }
}

async function refusal(method: string, path: string, response: Response): Promise<AppError> {
  const text = (await response.text()).slice(0, 500);
  return new AppError('internal', `${method} ${path}: ${response.status} ${text}`);
}
