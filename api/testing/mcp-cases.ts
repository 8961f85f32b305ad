/** Cases of the operation that speaks MCP; mcp/mcp-endpoint.test.ts talks to it by a client. */
import { expect } from 'vitest';
import type { Case } from './cases.ts';
import type { Answer, CallOptions, Harness } from './harness.ts';

export const LIST_MCP_TOOLS = { jsonrpc: '2.0', id: 1, method: 'tools/list' };

const mcp = (h: Harness, body: object, options: CallOptions = {}): Promise<Answer> =>
  h.call('callMcp', { body: { jsonrpc: '2.0', ...body }, ...options });

export const MCP_CASES: Case[] = [
  {
    operation: 'callMcp',
    what: 'a greeting gets a session id, another one each time',
    status: 200,
    call: async (h) => {
      const clientInfo = { name: 'test', version: '1' };
      const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo };
      const message = { id: 'a', method: 'initialize', params };
      const first = await mcp(h, message);
      const second = await mcp(h, message);
      const name = 'mcp-session-id';
      expect(second.headers.get(name)).not.toBe(first.headers.get(name));
      return first;
    },
    check: ({ body, headers }) => {
      expect(headers.get('mcp-session-id')).toMatch(/^mcp_/);
      expect(body[0]).toMatchObject({ id: 'a', result: { protocolVersion: '2025-06-18' } });
    },
  },
  {
    operation: 'callMcp',
    what: 'tools without a greeting before: there is no session to be in',
    status: 200,
    call: (h) => h.call('callMcp', { body: LIST_MCP_TOOLS }),
    check: ({ body, headers }) => {
      expect(headers.has('mcp-session-id')).toBe(false);
      const names = body[0].result.tools.map(({ name }: { name: string }) => name);
      const known = ['ask_agent', 'search_trajectories', 'get_trajectory', 'send_feedback'];
      expect(names).toEqual(known);
    },
  },
  ...[
    { method: 'notifications/initialized' },
    { method: 'notifications/cancelled', params: { requestId: 'never there' } },
    { id: 5, result: {} },
  ].map((message): Case => ({
    operation: 'callMcp',
    what: `${JSON.stringify(message)} is taken`,
    status: 202,
    call: (h) => mcp(h, message),
    check: ({ text }) => expect(text).toBe(''),
  })),
  ...[
    ['a version that is not known', {}, { headers: { 'mcp-protocol-version': '1999-01-01' } }],
    ['a message that is both request and answer', { result: {} }, {}],
    ['another JSON-RPC', { jsonrpc: '1.0' }, {}],
    ['parameters that are a list', { params: [] }, {}],
  ].map(([what, changes, options]): Case => ({
    operation: 'callMcp',
    what: what as string,
    status: 400,
    code: 'invalid_request',
    call: (h) => mcp(h, { ...LIST_MCP_TOOLS, ...(changes as object) }, options as CallOptions),
  })),
];
