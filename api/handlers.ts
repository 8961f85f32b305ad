/**
 * What a handler gets and gives, typed from the contract. The record of handlers is total over the
 * operation ids of openapi.yaml, so an operation without a handler does not compile.
 */
import type { AuditTrail } from './audit.ts';
import type { Principal } from './auth.ts';
import type { components, operations } from './contract/openapi.gen.ts';
import type { OperationId } from './contract/contract.ts';
import type { Activity } from './lifecycle.ts';

export type Schemas = components['schemas'];

type Present<T> = [T] extends [undefined] ? Record<string, never> : NonNullable<T>;

type BodyOf<Operation> = Operation extends { requestBody: { content: infer Content } }
  ? Content[keyof Content]
  : undefined;

/** A request that fits the contract. */
export interface Input<Id extends OperationId> {
  path: Present<operations[Id]['parameters']['path']>;
  query: Present<operations[Id]['parameters']['query']>;
  /** By the document's spelling. */
  header: Present<operations[Id]['parameters']['header']>;
  /** Undefined where the contract says that it is streamed. */
  body: BodyOf<operations[Id]>;
  /** A streamed body; null where there is none. See body-lines.ts. */
  stream: ReadableStream<Uint8Array> | null;
  requestId: string;
  /** Who asks: whose rows are made, and which are seen (tenantSeen of auth.ts). */
  principal: Principal;
  /** Of a call that is audited. */
  trail: AuditTrail | null;
  /** Its signal aborts when the client goes away or the server gives up waiting at shutdown. */
  activity: Activity;
}

export type Handler<Id extends OperationId> = (input: Input<Id>) => Promise<Response> | Response;

export type Handlers = { [Id in OperationId]: Handler<Id> };

/** A JSON answer; `T` is named at the call so that it is checked against the contract's type. */
export function json<T>(
  body: T,
  init: { status?: number; headers?: Record<string, string> } = {},
): Response {
  return Response.json(body, init);
}
