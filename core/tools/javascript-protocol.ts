/**
 * Messages between the JavaScript tool and its sandbox thread. Rules of the wire:
 * - the thread says `ready` once, when QuickJS is loaded; nothing is sent to it before;
 * - one `run` at a time; each is answered by one `done` with its id;
 * - `broken` in a `done` means that the thread must not be used again (its WebAssembly instance
 *   failed half-way); the main side then ends it;
 * - there is no stop message: the thread holds nothing, so it is simply terminated.
 */

export interface RunMessage {
  type: 'run';
  id: number;
  code: string;
  timeoutMs: number;
}

export type SandboxResult =
  { ok: true; text: string } | { ok: false; reason: 'error' | 'timeout'; message: string };

export type WorkerMessage =
  { type: 'ready' } | { type: 'done'; id: number; result: SandboxResult; broken: boolean };
