/**
 * Identifiers: UUIDv7 (RFC 9562) with a prefix that tells the kind, so ids sort by creation time
 * and a log line shows at once what an id is of. A counter in the bits after the timestamp keeps
 * ids made in the same millisecond in order.
 */
import { randomFillSync } from 'node:crypto';
import type { Clock } from './clock.ts';

export const ID_PREFIXES = {
  agentRun: 'run',
  conversation: 'conv',
  step: 'step',
  trajectory: 'traj',
  group: 'grp',
  toolCall: 'call',
  feedback: 'fb',
  task: 'task',
  trainingRun: 'trn',
  decision: 'dec',
  completion: 'chatcmpl',
  response: 'resp',
  message: 'msg',
  reasoning: 'rs',
  functionCall: 'fc',
  functionOutput: 'fco',
  serverCall: 'mcp',
  request: 'req',
  mcpSession: 'mcp',
  key: 'key',
  audit: 'aud',
} as const;

export type IdKind = keyof typeof ID_PREFIXES;

export type NewId = (kind: IdKind) => string;

/** Makes an id generator; one a process keeps its ids in order. */
export function idGenerator(clock: Clock): NewId {
  let lastMs = 0;
  let counter = 0;
  const random = new Uint8Array(8);
  return (kind) => {
    const now = clock.now();
    if (now > lastMs) {
      lastMs = now;
      counter = 0;
    } else if (++counter > 0xfff) {
      lastMs++;
      counter = 0;
    }
    randomFillSync(random);
    random[0] = ((random[0] as number) & 0x3f) | 0x80;
    const time = lastMs.toString(16).padStart(12, '0');
    const tail = Buffer.from(random).toString('hex');
    const uuid = [
      time.slice(0, 8),
      time.slice(8),
      `7${counter.toString(16).padStart(3, '0')}`,
      tail.slice(0, 4),
      tail.slice(4),
    ].join('-');
    return `${ID_PREFIXES[kind]}_${uuid}`;
  };
}
