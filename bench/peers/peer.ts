/**
 * The bench's side of a peer: installs the peers once, starts one as a child process and asks it
 * for measurements, one at a time (serve.mjs answers). Separate processes, so that no engine's
 * threads or memory weigh on another's figures. Knows no model.
 */
import { fork, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { AppError } from '../../core/errors.ts';
import { packageRoot } from '../../core/paths.ts';

const FOLDER = join(packageRoot, 'bench', 'peers');
const START_TIMEOUT_MS = 300_000;
const MEASURE_TIMEOUT_MS = 300_000;

export interface PeerResult {
  /** For `sampled` tokens of every row, after the first one. */
  seconds: number;
  sampled: number;
  /** Tokens of the first row. */
  first: number[];
}

/** Installs the locked packages of bench/peers unless they are there. Throws internal. */
export function installPeers(): void {
  if (existsSync(join(FOLDER, 'node_modules', '.package-lock.json'))) return;
  console.log('installing the peers (bench/peers) ...');
  const { status } = spawnSync('npm', ['ci'], { cwd: FOLDER, stdio: 'inherit' });
  if (status !== 0) throw new AppError('internal', `npm ci in bench/peers failed: ${status}`);
}

export class Peer {
  private readonly child: ChildProcess;
  private requests = 0;

  private constructor(child: ChildProcess) {
    this.child = child;
  }

  static async start(script: string, args: readonly string[]): Promise<Peer> {
    const child = fork(join(FOLDER, script), args, { execArgv: [] });
    await messageOf(child, START_TIMEOUT_MS, (message) => message.ready === true);
    return new Peer(child);
  }

  /** Throws internal when the peer reports an error, ends or does not answer in time. */
  async measure(request: Readonly<Record<string, number>>): Promise<PeerResult> {
    const id = ++this.requests;
    const answer = messageOf(this.child, MEASURE_TIMEOUT_MS, (message) => message.id === id);
    this.child.send({ ...request, id });
    const { result, error } = await answer;
    if (result === undefined) throw new AppError('internal', `peer: ${error}`);
    return result;
  }

  stop(): void {
    this.child.kill();
  }
}

interface Message {
  ready?: boolean;
  id?: number;
  result?: PeerResult;
  error?: string;
}

function messageOf(child: ChildProcess, limitMs: number, fits: (message: Message) => boolean) {
  return new Promise<Message>((resolve, reject) => {
    const fail = (what: string) => end(() => reject(new AppError('internal', `peer: ${what}`)));
    const timer = setTimeout(() => fail(`no answer within ${limitMs} ms`), limitMs);
    const onExit = (code: number | null) => fail(`ended with ${code}`);
    const onMessage = (message: Message) => {
      if (fits(message)) end(() => resolve(message));
    };
    const end = (settle: () => void) => {
      clearTimeout(timer);
      child.off('message', onMessage).off('exit', onExit);
      settle();
    };
    child.on('message', onMessage).on('exit', onExit);
  });
}
