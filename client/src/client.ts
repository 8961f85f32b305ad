/** openapi-fetch, typed by the contract: `client.GET('/v1/models')`. */
import createFetchClient from 'openapi-fetch';
import type { Client } from 'openapi-fetch';
import type { components, paths } from './openapi.gen.ts';

export type Schemas = components['schemas'];

/** Answers that are read at once; event streams have helpers of their own (streams.ts). */
type Media = `application/${string}`;

export type RamifyClient = Client<paths, Media>;

export interface ClientOptions {
  /** Without a path; http://127.0.0.1:8787 when absent. */
  baseUrl?: string;
  /** Sent as a bearer token. */
  apiKey?: string;
  /** Sent with every request. */
  headers?: Record<string, string>;
  /** In the place of the global one. */
  fetch?: (request: Request) => Promise<Response>;
}

export function createClient(options: ClientOptions = {}): RamifyClient {
  const { baseUrl = 'http://127.0.0.1:8787', apiKey, headers, fetch } = options;
  return createFetchClient<paths, Media>({
    baseUrl,
    headers: { ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }), ...headers },
    ...(fetch !== undefined && { fetch }),
  });
}
