/**
 * The tool `python`: a program of the policy in a sandbox (python-sandbox.ts). It is offered where
 * the sandbox holds: before, a program tries what it must not be able to do.
 */
import { toAppError } from '../errors.ts';
import { LIMITS } from '../limits.ts';
import type { Tool } from '../ports.ts';
import { PYTHON_ENVIRONMENT, pythonCommand } from './python-command.ts';
import type { Command } from './python-command.ts';
import { runPython } from './python-sandbox.ts';

export type PythonOffer =
  { tool: Tool; version: string } | { /** Why there is none, and what to do. */ fault: string };

/** Prints the version of Python, and before it what should have been refused but was not. */
const SELF_TEST = `
import os, socket, sys, threading
def refused(what, work):
    try: work()
    except (OSError, RuntimeError): return
    print(what)
refused('start a process', os.fork)
refused('start a thread', lambda: threading.Thread(target=print).start())
refused('write to /usr/lib', lambda: open('/usr/lib/ramify', 'w'))
refused('write to /', lambda: open('/ramify', 'w'))
refused('reach the network', lambda: socket.create_connection(('127.0.0.1', 9), 1))
refused('read /etc/passwd', lambda: open('/etc/passwd'))
if len(os.listdir('/proc/self/fd')) > 5: print('use an open file of the server')
names = {text.split('=')[0] for text in open('/proc/1/environ').read().split('\\0')}
if names - {'', 'PWD', ${Object.keys(PYTHON_ENVIRONMENT)
  .map((name) => `'${name}'`)
  .join()}}:
    print('read the environment of the server')
print(sys.version.split()[0])
`;

/** Tries the sandbox; takes some tenths of a second. Never throws. */
export async function offerPython(
  timeoutMs: number = LIMITS.pythonTimeoutMs,
): Promise<PythonOffer> {
  const command = pythonCommand(timeoutMs);
  if ('fault' in command) return command;
  try {
    const { signal } = new AbortController();
    const printed = await runPython(command, { code: SELF_TEST, timeoutMs, signal });
    const [version = '', ...allowed] = printed.split('\n').reverse();
    if (allowed.length > 0) return { fault: `the sandbox lets code ${allowed.join(', ')}` };
    return { tool: pythonTool(command, timeoutMs), version };
  } catch (thrown) {
    const why = toAppError(thrown).message;
    return { fault: `bubblewrap cannot make a sandbox here (${why}); ${PERMISSIONS}` };
  }
}

const PERMISSIONS =
  'user namespaces must be allowed: sysctl kernel.unprivileged_userns_clone=1, ' +
  'kernel.apparmor_restrict_unprivileged_userns=0, or for Docker a seccomp profile with them';

function pythonTool(command: Command, timeoutMs: number): Tool {
  return {
    name: 'python',
    description:
      'Runs Python and returns what it prints and the value of the last expression. There is no ' +
      'network, no input, one thread, and files only in /tmp, which is empty at each call.',
    parameters: {
      type: 'object',
      properties: { code: { type: 'string', description: 'A program or an expression.' } },
      required: ['code'],
      additionalProperties: false,
    },
    primaryArgument: 'code',
    effects: 'none',
    timeoutMs: LIMITS.toolTimeoutMs,
    concurrencyMax: LIMITS.pythonConcurrencyMax,
    run: (args, signal) => runPython(command, { code: args.code as string, timeoutMs, signal }),
  };
}
