/**
 * A logged trajectory as chat messages in OpenAI's form, one line of JSON, as fine-tuning tools
 * read them. The log keeps tokens, not messages: the policy's messages are read from its steps by
 * its protocol, the client's from the prompt's tokens, where the template marks turns as ChatML or
 * Llama 3 do, or else from the task's question. What can be had from neither has no line.
 *
 * This form loses figures, versions and limits of sampling; api/trajectory-lines.ts keeps all.
 */
import type { StepRecord, TrajectoryRecord } from '../core/records.ts';
import { textDirectory } from '../core/model/lora-directory.ts';
import { loadText } from '../core/text/load-text.ts';
import type { Protocol, Tokenizer } from '../core/text/types.ts';
import type { PolicyStore } from '../db/policy-store.ts';
import type { TaskStore } from '../db/task-store.ts';
import { ChatText, hiddenTokens } from './chat-text.ts';

interface Text {
  tokenizer: Tokenizer;
  protocol: Protocol;
}

interface Message {
  role: string;
  content: string | null;
  /** What the policy thought, as the makers of reasoning models name it. */
  reasoning_content?: string;
  tool_calls?: { id: string; type: 'function'; function: { name: string; arguments: string } }[];
  tool_call_id?: string;
}

/** How templates mark turns: opening, end of the role's name, end of the message. */
const TURN_MARKS = [
  { open: '<|im_start|>', afterRole: '\n', close: '<|im_end|>' },
  { open: '<|start_header_id|>', afterRole: '<|end_header_id|>\n\n', close: '<|eot_id|>' },
] as const;

/** Text layers by version, the last one kept: trajectories of a version mostly come in a row. */
export class PolicyTexts {
  private readonly policies: PolicyStore;
  private kept: { version: number; text: Text | null } | null = null;

  constructor(policies: PolicyStore) {
    this.policies = policies;
  }

  /** Null for a version that this folder does not have. @throws AppError policy_invalid */
  of(version: number): Text | null {
    if (this.kept?.version !== version) {
      const path = this.policies.find(version)?.path;
      const text = path === undefined ? null : loadText(textDirectory(path));
      this.kept = { version, text };
    }
    return this.kept.text;
  }
}

/** One line without its end, or null where the log does not have the messages. */
export function chatLine(
  { trajectory, steps }: { trajectory: TrajectoryRecord; steps: readonly StepRecord[] },
  { texts, tasks }: { texts: PolicyTexts; tasks: Pick<TaskStore, 'find'> },
): string | null {
  const text = texts.of(trajectory.policyVersion);
  if (text === null) return null;
  const question = trajectory.taskId === null ? null : tasks.find(trajectory.taskId)?.question;
  const messages: Message[] = [];
  for (const step of steps) {
    if (step.kind === 'policy') messages.push(assistantMessage(step, steps, text));
    else if (step.kind === 'tool') messages.push(...toolMessages(step));
    else {
      const asked = promptMessages(step, text.tokenizer);
      if (asked !== null) messages.push(...asked);
      else if (step.index === 0 && typeof question === 'string') {
        messages.push({ role: 'user', content: question });
      } else return null;
    }
  }
  const { id, reward } = trajectory;
  return JSON.stringify({ messages, metadata: { trajectory_id: id, reward } });
}

/** As a chat client would have been shown it (chat-text.ts). */
function assistantMessage(step: StepRecord, steps: readonly StepRecord[], text: Text): Message {
  const { protocol, tokenizer } = text;
  const parsed = protocol.parseStep(step.text);
  const hidden = new Set(hiddenTokens(protocol, tokenizer));
  const shown = tokenizer.decode(step.tokens.filter((token) => !hidden.has(token)));
  const reasoningOpen = steps[step.index - 1]?.text.trimEnd().endsWith('<think>') ?? false;
  const splitter = new ChatText(protocol, { stops: [], reasoningOpen });
  const { calls } = parsed;
  const pieces = [splitter.push(shown), splitter.finish(parsed, calls.length > 0)];
  const content = pieces.map((piece) => piece.content).join('');
  const reasoning = pieces.map((piece) => piece.reasoning).join('');
  // Each call became the tool step that follows, in order; a call that was never run has no id.
  const ids = steps.slice(step.index + 1).map(({ toolCall }) => toolCall?.id);
  return {
    role: 'assistant',
    content: content === '' && calls.length > 0 ? null : content,
    ...(reasoning !== '' && { reasoning_content: reasoning }),
    ...(calls.length > 0 && {
      tool_calls: calls.map((call, i) => ({
        id: ids[i] ?? call.id ?? `${step.id}_${i}`,
        type: 'function' as const,
        function: { name: call.name, arguments: call.arguments },
      })),
    }),
  };
}

function toolMessages({ toolCall }: StepRecord): Message[] {
  if (toolCall === null) return [];
  return [{ role: 'tool', tool_call_id: toolCall.id, content: toolCall.result ?? '' }];
}

/**
 * The messages that a prompt's tokens spell; null when no marks are known. Marks are found as
 * tokens: text that a user spelled like one is not taken for it.
 */
export function promptMessages(
  { tokens }: Pick<StepRecord, 'tokens'>,
  tokenizer: Tokenizer,
): Message[] | null {
  for (const { open, afterRole, close } of TURN_MARKS) {
    const [openId, closeId] = [tokenizer.tokenId(open), tokenizer.tokenId(close)];
    if (openId === null || closeId === null) continue;
    const messages: Message[] = [];
    for (let at = tokens.indexOf(openId); at !== -1; at = tokens.indexOf(openId, at + 1)) {
      const next = tokens.indexOf(openId, at + 1);
      const turn = tokens.subarray(at + 1, next === -1 ? tokens.length : next);
      const end = turn.indexOf(closeId);
      // The last turn is open: the policy writes it.
      if (end === -1) continue;
      const spelled = tokenizer.decode(turn.subarray(0, end));
      const head = spelled.indexOf(afterRole);
      if (head === -1) return null;
      const role = spelled.slice(0, head);
      messages.push({ role, content: spelled.slice(head + afterRole.length) });
    }
    return messages.length > 0 ? messages : null;
  }
  return null;
}
