/**
 * What ramify offers to MCP clients: its agent and its log, as tools. Each is an operation of the
 * contract under another name, so checks, rights and errors are those of the HTTP calls.
 */
import type { Tool } from '@modelcontextprotocol/sdk/types.js';
import { AppError } from '../../core/errors.ts';
import type { Contract, OperationId, RequestPart } from '../contract/contract.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';

/** The operations that tools are made of. */
export type ToolOperation =
  'createAgentRun' | 'listTrajectories' | 'getTrajectory' | 'createFeedback';

export type ToolHandlers = Pick<Handlers, ToolOperation>;

/** What each call has besides its arguments. */
export type Caller = Pick<Input<OperationId>, 'requestId' | 'principal' | 'activity'>;

type Args = Record<string, unknown>;

interface RamifyTool extends Tool {
  operation: ToolOperation;
  /** Parts of the operation's request. */
  request: (args: Args) => Partial<Record<RequestPart, Args>>;
  /** What of its answer the client gets. */
  result?: (answer: never) => Args;
}

const text = (description: string) => ({ type: 'string', description });

const TOOLS: readonly RamifyTool[] = [
  {
    name: 'ask_agent',
    description:
      'Asks the agent of this server: a policy that calls tools on the server until it has an ' +
      'answer, and learns from feedback (send_feedback) on what it did.',
    inputSchema: {
      type: 'object',
      properties: {
        question: text('What the agent is to answer.'),
        tools: {
          type: 'array',
          items: { type: 'string' },
          description: 'Names of server tools that it may call, as `search`; none when absent.',
        },
        model: text('`ramify`, the live policy, or `ramify@VERSION`.'),
        max_tool_calls: { type: 'integer', minimum: 0 },
        max_tokens: { type: 'integer', minimum: 1 },
        seed: { type: 'integer', minimum: 0 },
      },
      required: ['question'],
      additionalProperties: false,
    },
    annotations: { title: 'Ask the agent', readOnlyHint: false, openWorldHint: true },
    operation: 'createAgentRun',
    request: ({ question, ...others }) => ({ body: { input: question, ...others } }),
    result: runSummary,
  },
  {
    name: 'search_trajectories',
    description:
      'Lists logged trajectories, newest first: what the policy did, with its reward. All ' +
      'conditions given must hold.',
    inputSchema: {
      type: 'object',
      properties: {
        source: { type: 'string', enum: ['live', 'rollout', 'replay', 'eval'] },
        status: { type: 'string', enum: ['completed', 'cancelled', 'failed'] },
        end_reason: text('Why it ended, as `answer` or `max_tokens`.'),
        policy_version: { type: 'integer', minimum: 1 },
        task_id: text('Id of the task that it worked on.'),
        training_run_id: text('Id of the training run that made it.'),
        tool: text('A tool that was called.'),
        reward_min: { type: 'number' },
        reward_max: { type: 'number' },
        scored: { type: 'boolean', description: 'Whether it has a reward.' },
        min_entropy_jump: {
          type: 'number',
          description: 'Of the largest rise of entropy after a tool result.',
        },
        created_after: text('RFC 3339, inclusive.'),
        created_before: text('RFC 3339, exclusive.'),
        limit: { type: 'integer', minimum: 1, maximum: 100 },
        cursor: text('`next_cursor` of the page before.'),
      },
      additionalProperties: false,
    },
    annotations: { title: 'Search trajectories', readOnlyHint: true, openWorldHint: false },
    operation: 'listTrajectories',
    request: (args) => ({ query: args }),
  },
  {
    name: 'get_trajectory',
    description: 'Reads one trajectory with its steps, from the prompt to the answer.',
    inputSchema: {
      type: 'object',
      properties: { trajectory_id: text('Its id, `traj_...`.') },
      required: ['trajectory_id'],
      additionalProperties: false,
    },
    annotations: { title: 'Read a trajectory', readOnlyHint: true, openWorldHint: false },
    operation: 'getTrajectory',
    request: (args) => ({ path: args }),
  },
  {
    name: 'send_feedback',
    description:
      'Says how good a trajectory or one of its steps was. Rewards are what the policy learns from.',
    inputSchema: {
      type: 'object',
      properties: {
        trajectory_id: text('The trajectory, or give step_id.'),
        step_id: text('The step, or give trajectory_id.'),
        metric_name: text(
          '`reward`, `comment`, `demonstration`, or one that this server declares.',
        ),
        value: {
          type: ['number', 'string', 'boolean'],
          description: 'Of a reward a number, of a comment and a demonstration a text.',
        },
        id: text('Chosen by the client: repeating the same feedback then changes nothing.'),
      },
      required: ['metric_name', 'value'],
      additionalProperties: false,
    },
    annotations: { title: 'Send feedback', readOnlyHint: false, destructiveHint: false },
    operation: 'createFeedback',
    request: (args) => ({ body: args }),
  },
];

/** As MCP lists them. */
export function listedTools(): Tool[] {
  return TOOLS.map(({ operation: _o, request: _q, result: _r, ...tool }) => tool);
}

/**
 * Runs a tool. @throws AppError invalid_request for arguments that do not fit; and what the
 * operation throws. Null when there is no such tool.
 */
export function runTool(
  { contract, handlers }: { contract: Contract; handlers: ToolHandlers },
  name: string,
  args: Args,
  caller: Caller,
): Promise<Args> | null {
  const tool = TOOLS.find((one) => one.name === name);
  return tool === undefined ? null : run(contract, handlers, tool, args, caller);
}

async function run(
  contract: Contract,
  handlers: ToolHandlers,
  tool: RamifyTool,
  args: Args,
  caller: Caller,
): Promise<Args> {
  const { operation, inputSchema, request } = tool;
  const unknown = Object.keys(args).find((key) => inputSchema.properties?.[key] === undefined);
  if (unknown !== undefined) {
    throw new AppError('invalid_request', `${unknown}: is not known`);
  }
  const missing = inputSchema.required?.find((key) => args[key] === undefined);
  if (missing !== undefined) throw new AppError('invalid_request', `${missing}: is required`);
  const parts = { path: {}, query: {}, header: {}, ...structuredClone(request(args)) };
  for (const [part, value] of Object.entries(parts)) {
    const checked = contract.checkRequest(operation, part as RequestPart, value);
    if (!('mistake' in checked)) continue;
    // The one argument that has another name here.
    const message = checked.mistake.message.replace(/^input\b/, 'question');
    throw new AppError('invalid_request', message);
  }
  // The parts were checked against this very operation, which the types cannot follow.
  const handler = handlers[operation] as (input: unknown) => Promise<Response> | Response;
  const response = await handler({ body: undefined, stream: null, ...parts, ...caller });
  const answer = (await response.json()) as Args;
  return tool.result === undefined ? answer : tool.result(answer as never);
}

const STEP_CHARS_MAX = 500;

function runSummary(run: Schemas['AgentRun']): Args {
  const short = (value: string): string =>
    value.length <= STEP_CHARS_MAX ? value : `${value.slice(0, STEP_CHARS_MAX)} ...`;
  const steps = run.steps
    .filter(({ kind }) => kind !== 'prompt')
    .map(({ text: written, tool_call: call }) =>
      call === undefined
        ? { text: short(written) }
        : {
            tool: call.name,
            arguments: short(call.arguments),
            result: short(call.result ?? ''),
            error: call.error,
          },
    );
  const { id, status, model, answer, trajectory_id, usage, error } = run;
  return { answer, trajectory_id, run_id: id, status, model, steps, usage, error };
}
