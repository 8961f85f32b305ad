/**
 * openapi.yaml as something that can be asked: which operations there are, does this request fit,
 * does this response. Every schema is compiled once, by Ajv's 2020-12 dialect, straight from the
 * document (OpenAPI 3.1 schemas are JSON Schema). Knows nothing of HTTP frameworks.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ErrorObject, ValidateFunction } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { parse } from 'yaml';
import { assert, must } from '../../core/assert.ts';
import { packageRoot } from '../../core/paths.ts';
import type { Scope } from '../../core/key-records.ts';
import type { operations } from './openapi.gen.ts';
import { mistakeOf } from './mistake.ts';
import type { Mistake } from './mistake.ts';

export type OperationId = keyof operations;

export interface Operation {
  id: OperationId;
  /** Upper case. */
  method: string;
  /** As in the document, `/v1/agent/runs/{run_id}`. */
  path: string;
  tag: string;
  /** The scope that its callers need; null: it is open to all. */
  scope: Scope | null;
  /** Whether it samples tokens: then it is refused when a key has used up those of its day. */
  spendsTokens: boolean;
  /** Whether its answer is a stream: when the request's field `stream` says so, or always. */
  streams: 'never' | 'asked' | 'always';
  /** Media type of the request body; null when there is none. */
  bodyType: string | null;
  /** The handler reads the body itself, as it comes. */
  bodyStreamed: boolean;
  /** Status -> what may be answered. */
  responses: ReadonlyMap<number, ResponseContract>;
}

export interface ResponseContract {
  mediaTypes: readonly string[];
  errorCodes: readonly string[];
}

export type RequestPart = 'path' | 'query' | 'header' | 'body';

/** Checked, and for parameters also converted to the documented types. */
export type PartResult = { value: unknown } | { mistake: Mistake };

type Json = Record<string, unknown>;

const DOCUMENT = 'openapi.yaml';
const METHODS = ['get', 'post', 'put', 'delete', 'patch'] as const;

export const contractPath: string = join(packageRoot, DOCUMENT);

export class Contract {
  readonly text: string;
  readonly operations: readonly Operation[];
  /** Codes of the schema ErrorCode. */
  readonly errorCodes: readonly string[];
  private readonly document: Json;
  private readonly bodies: Ajv2020;
  private readonly parameters: Ajv2020;
  private readonly compiled = new Map<string, ValidateFunction>();

  constructor(text: string) {
    this.text = text;
    this.document = parse(text) as Json;
    this.bodies = this.ajv(false);
    this.parameters = this.ajv(true);
    this.operations = this.readOperations();
    const codes = this.at(['components', 'schemas', 'ErrorCode']);
    this.errorCodes = codes['enum'] as string[];
    for (const operation of this.operations) this.compileRequest(operation);
  }

  get version(): string {
    return this.at(['info'])['version'] as string;
  }

  operation(id: OperationId): Operation {
    return must(
      this.operations.find((operation) => operation.id === id),
      `operation ${id}`,
    );
  }

  /** Names of the parameters of one part, in the document's spelling. */
  parameterNames(id: OperationId, part: RequestPart): string[] {
    return this.parameterList(this.operation(id))
      .filter(({ value }) => value['in'] === part)
      .map(({ value }) => value['name'] as string);
  }

  /** Parameters come as strings and are converted in place. */
  checkRequest(id: OperationId, part: RequestPart, value: unknown): PartResult {
    const validate = must(this.compiled.get(`${id} ${part}`), `validator of ${id} ${part}`);
    if (validate(value)) return { value };
    return { mistake: mistakeOf(validate.errors ?? [], part) };
  }

  /** Checks a value against a named schema; null = it fits. */
  checkSchema(name: string, value: unknown): Mistake | null {
    const validate = this.compile(`#/components/schemas/${name}`);
    return validate(value) ? null : mistakeOf(validate.errors ?? [], 'body');
  }

  /**
   * What is wrong with a response; empty = nothing. The body is the parsed JSON, or for event
   * streams the list of parsed data lines, or text.
   */
  checkResponse(id: OperationId, status: number, mediaType: string, body: unknown): string[] {
    const operation = this.operation(id);
    const response = operation.responses.get(status);
    if (response === undefined) return [`${id}: status ${status} is not documented`];
    if (response.mediaTypes.length === 0 && mediaType === '') return [];
    if (!response.mediaTypes.includes(mediaType)) {
      return [`${id} ${status}: media type ${mediaType} is not documented`];
    }
    const content = this.responseContent(operation, status, mediaType);
    const wrong: string[] = [];
    const check = (pointer: string, value: unknown): void => {
      const validate = this.compile(pointer);
      if (validate(value)) return;
      const reasons = (validate.errors ?? []).map(reason).join('; ');
      wrong.push(`${id} ${status}: ${reasons} in ${JSON.stringify(value).slice(0, 500)}`);
    };
    if (mediaType === 'text/event-stream') {
      for (const line of body as unknown[]) check(`${content}/x-sse-data`, line);
    } else {
      check(`${content}/schema`, body);
    }
    const code = (body as { error?: { code?: string } } | null)?.error?.code;
    if (response.errorCodes.length > 0 && !response.errorCodes.includes(String(code))) {
      wrong.push(`${id} ${status}: code ${String(code)} is not documented`);
    }
    return wrong;
  }

  private ajv(coerceTypes: boolean): Ajv2020 {
    const ajv = new Ajv2020({
      coerceTypes,
      verbose: true,
      discriminator: true,
      allowUnionTypes: true,
      strictTypes: false,
      strictRequired: false,
      // Costs half the start; contract.test.ts holds the document against the meta-schema instead.
      validateSchema: false,
    });
    // The default export of this CommonJS package is nested one deeper for TypeScript than at run
    // time.
    (formats as unknown as (ajv: Ajv2020) => void)(ajv);
    ajv.addVocabulary(['x-unsupported', 'x-sse-data', 'x-extensible', 'example']);
    // Root keywords of OpenAPI: the document is not a schema itself, only home of many.
    ajv.addVocabulary([
      ...['openapi', 'info', 'servers', 'security', 'tags', 'paths', 'components'],
    ]);
    ajv.addSchema(withoutMappings(this.document) as Json, DOCUMENT);
    return ajv;
  }

  private compile(pointer: string, ajv = this.bodies): ValidateFunction {
    const known = this.compiled.get(pointer);
    if (known !== undefined && ajv === this.bodies) return known;
    const validate = ajv.compile({ $ref: `${DOCUMENT}${pointer}` });
    if (ajv === this.bodies) this.compiled.set(pointer, validate);
    return validate;
  }

  private compileRequest(operation: Operation): void {
    for (const part of ['path', 'query', 'header'] as const) {
      const list = this.parameterList(operation).filter(({ value }) => value['in'] === part);
      const name = (value: Json): string =>
        part === 'header' ? String(value['name']).toLowerCase() : String(value['name']);
      const schema = {
        type: 'object',
        properties: Object.fromEntries(
          list.map(({ value, pointer }) => [name(value), { $ref: `${DOCUMENT}${pointer}/schema` }]),
        ),
        required: list.filter(({ value }) => value['required'] === true).map((p) => name(p.value)),
        additionalProperties: false,
      };
      this.compiled.set(`${operation.id} ${part}`, this.parameters.compile(schema));
    }
    if (operation.bodyType === null) return;
    const content = `${escapePath(operation)}/requestBody/content/${escape(operation.bodyType)}`;
    this.compiled.set(`${operation.id} body`, this.compile(`${content}/schema`));
  }

  private readOperations(): Operation[] {
    const out: Operation[] = [];
    for (const [path, item] of Object.entries(this.at(['paths']))) {
      for (const method of METHODS) {
        const raw = (item as Json)[method] as Json | undefined;
        if (raw === undefined) continue;
        const body = raw['requestBody'] as (Json & { content: Json }) | undefined;
        const responses = this.readResponses(raw['responses'] as Json);
        const security = (raw['security'] ?? this.document['security']) as Json[];
        out.push({
          id: raw['operationId'] as OperationId,
          method: method.toUpperCase(),
          path,
          tag: (raw['tags'] as string[])[0] ?? '',
          scope: scopeOf(security),
          spendsTokens: responses.get(429)?.errorCodes.includes('insufficient_quota') === true,
          streams: streamsOf(responses),
          bodyType: body === undefined ? null : (Object.keys(body.content)[0] ?? null),
          bodyStreamed: body?.['x-streamed'] === true,
          responses,
        });
      }
    }
    return out;
  }

  private readResponses(raw: Json): Map<number, ResponseContract> {
    const out = new Map<number, ResponseContract>();
    for (const [status, response] of Object.entries(raw)) {
      const { value } = this.follow(response as Json, '');
      out.set(Number(status), {
        mediaTypes: Object.keys((value['content'] as Json | undefined) ?? {}),
        errorCodes: (value['x-error-codes'] as string[] | undefined) ?? [],
      });
    }
    return out;
  }

  private parameterList(operation: Operation): { value: Json; pointer: string }[] {
    const raw = this.at(['paths', operation.path, operation.method.toLowerCase()]);
    const list = (raw['parameters'] as Json[] | undefined) ?? [];
    return list.map((value, i) => this.follow(value, `${escapePath(operation)}/parameters/${i}`));
  }

  private responseContent(operation: Operation, status: number, mediaType: string): string {
    const path = ['paths', operation.path, operation.method.toLowerCase(), 'responses'];
    const { pointer } = this.follow(
      this.at([...path, String(status)]),
      `${escapePath(operation)}/responses/${status}`,
    );
    return `${pointer}/content/${escape(mediaType)}`;
  }

  /** Follows one `$ref` within the document. */
  private follow(value: Json, pointer: string): { value: Json; pointer: string } {
    const ref = value['$ref'];
    if (typeof ref !== 'string') return { value, pointer };
    assert(ref.startsWith('#/'), `the contract refers outside itself: ${ref}`);
    return { value: this.at(ref.slice(2).split('/')), pointer: ref };
  }

  private at(path: readonly string[]): Json {
    let value: Json = this.document;
    for (const key of path) value = must(value[key], `${DOCUMENT} has ${path.join('/')}`) as Json;
    return value;
  }
}

function scopeOf(security: readonly Json[]): Scope | null {
  const [requirement] = security;
  if (requirement === undefined) return null;
  const [scope] = requirement['key'] as Scope[];
  return must(scope, 'a scope stands behind the key');
}

function streamsOf(responses: ReadonlyMap<number, ResponseContract>): Operation['streams'] {
  const mediaTypes = responses.get(200)?.mediaTypes ?? [];
  if (!mediaTypes.includes('text/event-stream')) return 'never';
  return mediaTypes.length > 1 ? 'asked' : 'always';
}

/** Ajv takes the tag's values from the alternatives themselves and refuses OpenAPI's mapping. */
function withoutMappings(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutMappings);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key,
      key === 'discriminator' && isObject(inner)
        ? { propertyName: inner['propertyName'] }
        : withoutMappings(inner),
    ]),
  );
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Reads openapi.yaml beside package.json. */
export function loadContract(): Contract {
  return new Contract(readFileSync(contractPath, 'utf8'));
}

function reason(error: ErrorObject): string {
  const extra = JSON.stringify(error.params);
  return `${error.instancePath || '/'} ${error.message ?? error.keyword} ${extra}`;
}

function escapePath(operation: Operation): string {
  return `#/paths/${escape(operation.path)}/${operation.method.toLowerCase()}`;
}

/** A JSON pointer token inside a URI fragment. */
function escape(token: string): string {
  return encodeURIComponent(token.replaceAll('~', '~0').replaceAll('/', '~1'));
}
