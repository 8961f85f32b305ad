/**
 * What a chat template writes between the end of a sampled step and the place where the policy goes
 * on: the rendering of a short stand-in conversation, cut behind the stand-in's turn. Sampled
 * tokens can then be continued as they are, without rendering the history again (arpo.md section
 * 1). Knows no protocol: which token ends a turn is passed in.
 */
import { toAppError } from '../errors.ts';
import type { ChatTemplate, RenderedText } from './chat-template.ts';
import type { ChatMessage, FinishedStep, Tokenizer } from './types.ts';

/** The stand-in's words, which no template writes by itself. */
const MARK = 'ramify continues here';

/** The texts of those end-of-turn tokens that have one; ids of a padded embedding have none. */
export function endTexts(tokenizer: Tokenizer, tokens: readonly number[]): string[] {
  return tokens.map((token) => tokenizer.decode([token])).filter((text) => text !== '');
}

/** The results among the messages, in the order of the step's calls, and the rest. */
export function splitAnswers(
  { calls }: Pick<FinishedStep, 'calls'>,
  messages: readonly ChatMessage[],
): { answers: ChatMessage[]; rest: ChatMessage[] } {
  const place = (message: ChatMessage): number =>
    calls.findIndex((call) => call.id === message.toolCallId);
  return {
    answers: messages
      .filter(({ role }) => role === 'tool')
      .sort((one, other) => place(one) - place(other)),
    rest: messages.filter(({ role }) => role !== 'tool'),
  };
}

/**
 * Tokens of `messages` after an assistant turn with these calls. The turn's end token is among them
 * when the step did not write it (`turnEnded` false). Null when the template shows no end of the
 * turn, or refuses the stand-in conversation: it may still take the real one.
 */
export function renderAfterTurn(
  template: ChatTemplate,
  turn: { calls: FinishedStep['calls']; endTexts: readonly string[]; turnEnded: boolean },
  messages: readonly ChatMessage[],
): number[] | null {
  const { calls, endTexts, turnEnded } = turn;
  const standIn: ChatMessage[] = [
    { role: 'user', content: '' },
    { role: 'assistant', content: MARK, ...(calls.length > 0 && { toolCalls: [...calls] }) },
  ];
  const whole = renderIfTaken(template, [...standIn, ...messages]);
  if (whole === null) return null;
  const marked = whole.text.indexOf(MARK);
  if (marked === -1) return null;
  const ends = endTexts
    .map((end) => ({ at: whole.text.indexOf(end, marked), length: end.length }))
    .filter(({ at }) => at !== -1)
    .sort((one, other) => one.at - other.at);
  const [end] = ends;
  if (end === undefined) return null;
  const from = turnEnded ? end.at + end.length : end.at;
  return template.encode({ text: whole.text.slice(from), guard: whole.guard });
}

function renderIfTaken(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
): RenderedText | null {
  try {
    return template.render(messages, [], { generationPrompt: true });
  } catch (thrown) {
    if (toAppError(thrown).code === 'invalid_request') return null;
    throw thrown;
  }
}
