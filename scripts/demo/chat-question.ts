/**
 * Asks a question with the official `openai` client, as an app would: streamed chat completions
 * with function tools. The policy only asks for a call; this side runs it, with the same `search`
 * and `javascript` as the server has, and sends the result back, until an answer comes.
 *
 * The history that is sent back holds no thoughts, but the server knows it and goes on from the
 * stored tokens, so the policy sees what it sees in an agent run.
 */
import type OpenAI from 'openai';
import { AppError } from '../../core/errors.ts';
import type { ToolRunner } from '../../core/ports.ts';
import { mix } from '../../core/prng.ts';
import type { Task } from '../../core/records.ts';
import { MAX_TOKENS, MAX_TOOL_CALLS, scored, type Answer } from './answer.ts';
import type { HttpClient } from './http-client.ts';

type Message = OpenAI.ChatCompletionMessageParam;
type ToolCall = OpenAI.ChatCompletionMessageFunctionToolCall;

export interface ChatAsker {
  openai: OpenAI;
  /** For the look into the log. */
  client: HttpClient;
  /** Runs the calls that the policy asks for. */
  tools: ToolRunner;
  signal: AbortSignal;
}

/** @throws AppError internal, or an error of the client, when a reply did not come whole. */
export async function askChat(asker: ChatAsker, task: Task, seed: number): Promise<Answer> {
  const messages: Message[] = [{ role: 'user', content: task.question }];
  const versions: number[] = [];
  const toolsUsed: string[] = [];
  let toolCalls = 0;
  // Each round answers, or uses up tool calls, which are bounded.
  for (;;) {
    const reply = await complete(asker, task, { messages, seed: mix(seed, toolCalls) });
    // The server keeps a conversation on the version that began it; more than one is a failure.
    versions.push(reply.version);
    const wanted = reply.toolCalls;
    const ended = wanted.length === 0;
    if (ended || toolCalls + wanted.length > MAX_TOOL_CALLS) {
      const { trajectoryId } = reply;
      const answer = ended ? reply.content : null;
      const said = { trajectoryId, versions, answer, toolCalls, toolsUsed, ended };
      return scored(asker.client, task, { way: 'chat', ...said });
    }
    messages.push({ role: 'assistant', content: null, tool_calls: wanted });
    for (const call of wanted) {
      const { name, arguments: text } = call.function;
      const outcome = await asker.tools.call(name, text, asker.signal);
      if (outcome.error === null) toolsUsed.push(name);
      messages.push({ role: 'tool', tool_call_id: call.id, content: outcome.result });
    }
    toolCalls += wanted.length;
  }
}

interface Reply {
  content: string;
  toolCalls: ToolCall[];
  version: number;
  trajectoryId: string;
}

async function complete(
  asker: ChatAsker,
  task: Task,
  request: { messages: Message[]; seed: number },
): Promise<Reply> {
  const { data: stream, response } = await asker.openai.chat.completions
    .create(
      {
        ...request,
        model: 'ramify',
        tools: asker.tools.specs(task.tools).map(functionTool),
        max_completion_tokens: MAX_TOKENS,
        stream: true,
      },
      // A signal of its own: the client leaves its listener on the one it is given.
      { signal: AbortSignal.any([asker.signal]) },
    )
    .withResponse();
  const models = new Set<string>([`ramify@${response.headers.get('x-ramify-policy')}`]);
  const toolCalls: ToolCall[] = [];
  let content = '';
  let finish: string | null = null;
  for await (const chunk of stream) {
    models.add(chunk.model);
    const choice = chunk.choices[0];
    content += choice?.delta.content ?? '';
    for (const piece of choice?.delta.tool_calls ?? []) addPiece(toolCalls, piece);
    finish = choice?.finish_reason ?? finish;
  }
  const [model] = models;
  const version = Number(/^ramify@(\d+)$/.exec(model ?? '')?.[1]);
  if (finish === null) throw new AppError('internal', 'a chat stream ended without its last chunk');
  if (models.size !== 1 || !Number.isInteger(version)) {
    throw new AppError('internal', `one reply named the models ${[...models].join(' and ')}`);
  }
  return { content, toolCalls, version, trajectoryId: trajectoryOf(response) };
}

function addPiece(
  calls: ToolCall[],
  piece: OpenAI.ChatCompletionChunk.Choice.Delta.ToolCall,
): void {
  const call = (calls[piece.index] ??= {
    id: '',
    type: 'function',
    function: { name: '', arguments: '' },
  });
  call.id += piece.id ?? '';
  call.function.name += piece.function?.name ?? '';
  call.function.arguments += piece.function?.arguments ?? '';
}

function trajectoryOf(response: Response): string {
  const id = response.headers.get('x-ramify-trajectory');
  if (id === null) throw new AppError('internal', 'a reply without the header x-ramify-trajectory');
  return id;
}

function functionTool(spec: {
  name: string;
  description: string;
  parameters: Record<string, unknown>;
}): OpenAI.ChatCompletionFunctionTool {
  const { name, description, parameters } = spec;
  return { type: 'function', function: { name, description, parameters } };
}
