/**
 * Everything needed to ask: the HTTP client, the openai client, and the tools that chat questions
 * run on this side. The tools are those of the server over the same knowledge base.
 */
import { join } from 'node:path';
import OpenAI from 'openai';
import { systemClock } from '../../core/clock.ts';
import { packageRoot } from '../../core/paths.ts';
import type { Task } from '../../core/records.ts';
import { javascriptTool } from '../../core/tools/javascript-tool.ts';
import { createToolRegistry } from '../../core/tools/registry.ts';
import { searchTool } from '../../core/tools/search-tool.ts';
import { openSearchIndex } from '../../db/search-index.ts';
import { askAgent } from './agent-question.ts';
import type { Answer, Way } from './answer.ts';
import { askChat, type ChatAsker } from './chat-question.ts';
import { HttpClient, REQUEST_MS } from './http-client.ts';

export interface Asker {
  readonly client: HttpClient;
  /** Asks one question; throws when any request of it failed. */
  ask(way: Way, task: Task, seed: number): Promise<Answer>;
  close(): Promise<void>;
}

/** `signal` ends every request. */
export function openAsker(url: string, signal: AbortSignal): Asker {
  const client = new HttpClient(url, signal);
  const index = openSearchIndex(join(packageRoot, 'corpus', 'documents.jsonl'));
  const javascript = javascriptTool();
  const chat: ChatAsker = {
    // No retries: a failure is to be counted. The server has no keys yet, the client wants one.
    openai: new OpenAI({
      baseURL: `${url}/v1`,
      apiKey: 'none',
      maxRetries: 0,
      timeout: REQUEST_MS,
    }),
    client,
    tools: createToolRegistry([searchTool(index), javascript], { clock: systemClock }),
    signal,
  };
  return {
    client,
    ask: (way, task, seed) =>
      way === 'agent' ? askAgent(client, task, seed) : askChat(chat, task, seed),
    close: async () => {
      await javascript.stop();
      index.close();
    },
  };
}
