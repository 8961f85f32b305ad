/**
 * An MCP server over standard input and output that misbehaves on demand: each of its tools is one
 * way to be slow, wrong or hostile. Written without the SDK, which would not let it.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const object = { type: 'object', properties: {}, additionalProperties: false };
const tools = [
  'echo_env',
  'huge',
  'silent',
  'wrong_form',
  'wrong_json',
  'exit',
  'leave_a_child',
  'add_a_tool',
  'cancelled_calls',
  'refuse',
].map((name) => ({ name, description: name, inputSchema: object }));
const cancelled = [];
/** How it greets: as it should, never, or with something else; `restless` lists without end. */
const greeting = process.argv[2] ?? 'good';

const send = (message) =>
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
const text = (id, value) => send({ id, result: { content: [{ type: 'text', text: value }] } });

const calls = {
  echo_env: (id) => text(id, JSON.stringify(process.env)),
  huge: (id) => text(id, 'x'.repeat(20 * 1024 * 1024)),
  silent: () => undefined,
  wrong_form: (id) => send({ id, result: { content: 'not a list' } }),
  wrong_json: (id) => {
    process.stdout.write('{"jsonrpc": "2.0", "id": \n');
    text(id, 'and then a whole message');
  },
  exit: () => process.exit(3),
  // Holds the output open and ignores the end of input, as a daemon would.
  leave_a_child: (id) => {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], {
      stdio: ['ignore', 'inherit', 'ignore'],
    });
    text(id, JSON.stringify({ own: process.pid, child: child.pid }));
  },
  add_a_tool: (id) => {
    tools.push({ name: `added_${tools.length}`, inputSchema: object });
    send({ method: 'notifications/tools/list_changed' });
    text(id, 'added');
  },
  cancelled_calls: (id) => text(id, JSON.stringify(cancelled)),
  refuse: (id) =>
    send({ id, result: { isError: true, content: [{ type: 'text', text: 'I will not' }] } }),
};

const methods = {
  initialize: (id, params) => {
    if (greeting === 'silent') return;
    if (greeting === 'wrong') return send({ id, result: { protocolVersion: 7 } });
    const { protocolVersion } = params;
    const capabilities = { tools: { listChanged: true } };
    send({
      id,
      result: { protocolVersion, capabilities, serverInfo: { name: 'odd', version: '1' } },
    });
  },
  'tools/list': (id) => {
    send({ id, result: { tools } });
    if (greeting === 'restless') send({ method: 'notifications/tools/list_changed' });
  },
  'tools/call': (id, { name }) => (calls[name] ? calls[name](id) : text(id, name)),
  'notifications/cancelled': (_, { requestId }) => cancelled.push(requestId),
};

process.stdout.write('a line that is no message\n');
console.error('odd server started');
createInterface({ input: process.stdin })
  .on('line', (line) => {
    const { id, method, params } = JSON.parse(line);
    methods[method]?.(id, params ?? {});
  })
  // With a child it stays, so that only a signal ends it.
  .on('close', () => undefined);
