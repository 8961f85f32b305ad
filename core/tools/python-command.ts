/**
 * The command line of one Python call: bubblewrap, then prlimit, then Python with a wrapper that
 * runs the program from its standard input. What the sandbox is made of:
 * - namespaces of its own for users, processes, network, IPC and host name, none below it, and no
 *   capabilities;
 * - Python's own folders read-only, and two small file systems in memory that end with the call;
 *   all else that bubblewrap makes (`/`, `/dev`), which has no limit of its size, is read-only;
 * - one process with one thread: what it may have of memory is then all that a call may have. The
 *   kernel holds root to no number of processes, so as root the sandbox runs as `nobody`;
 * - around it a second bubblewrap, which only ends what is inside when the server ends or kills it.
 *   One alone would either keep a process inside that has no limits and whose memory the program
 *   can write, or trust the program not to switch off that it ends with its parent.
 *
 * What lies in /usr/bin and /usr/lib can be read. Knows nothing of running it.
 */
import { existsSync, realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { LIMITS } from '../limits.ts';

export interface Command {
  file: string;
  args: string[];
  /** Whom it runs as; left out: as the server. */
  identity: { uid: number; gid: number } | Record<string, never>;
}

const PYTHON = '/usr/bin/python3';
const PRLIMIT = '/usr/bin/prlimit';
const BWRAP_PLACES = ['/usr/bin/bwrap', '/bin/bwrap', '/usr/local/bin/bwrap'];
/** On Linux whoever is nobody else. */
const NOBODY = 65_534;
/** For pieces of shared memory of a library; a program has no one to share with. */
const SHARED_MEMORY_BYTES = 1024 * 1024;

/**
 * No files but its own, the first to go when memory is short, a fresh name space, random numbers
 * and hashes that are the same in every call, and a value of the last line that is shown like one
 * that is printed. Of an error its last place in the program.
 */
const WRAPPER = `
import ast, os, random, sys, traceback, types
for name in os.listdir('/proc/self/fd'):
    try: int(name) > 2 and os.close(int(name))
    except OSError: pass
with open('/proc/self/oom_score_adj', 'w') as file: file.write('1000')
random.seed(0)
main = types.ModuleType('__main__')
wrapper, sys.modules['__main__'] = sys.modules['__main__'], main
def run(tree, kind):
    return eval(compile(tree, 'code.py', kind), main.__dict__)
try:
    tree = ast.parse(sys.stdin.buffer.read(), 'code.py')
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    run(tree, 'exec')
    value = run(ast.Expression(last.value), 'eval') if last else None
    if value is not None: print(value)
    sys.stdout.flush()
except Exception as error:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if frame.filename == 'code.py']
    if isinstance(error, SyntaxError) and not lines: lines = [error.lineno]
    why = ' '.join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    where = f'line {lines[-1]}: ' if lines else ''
    text = where + type(error).__name__ + (f': {why}' if why else '')
    os.write(2, text[:2000].encode('utf8', 'replace'))
    os._exit(1)
`;

/** The command, or what must be installed for there to be one. */
export function pythonCommand(timeoutMs: number): Command | { fault: string } {
  const bwrap = BWRAP_PLACES.find((path) => existsSync(path));
  const missing = [
    ...(process.platform === 'linux' ? [] : ['Linux']),
    ...(bwrap === undefined ? ['bubblewrap (apt-get install bubblewrap)'] : []),
    ...(existsSync(PYTHON) ? [] : [`${PYTHON} (apt-get install python3)`]),
    ...(existsSync(PRLIMIT) ? [] : [`${PRLIMIT} (apt-get install util-linux)`]),
  ];
  if (bwrap === undefined || missing.length > 0) return { fault: `needs ${missing.join(', ')}` };
  const isRoot = process.getuid?.() === 0;
  return {
    file: bwrap,
    args: [
      ...['--unshare-user', '--unshare-pid', '--die-with-parent', '--dev-bind', '/', '/'],
      ...[bwrap, ...sandbox(), ...limits(timeoutMs), PYTHON, ...FLAGS, '-c', WRAPPER],
    ],
    identity: isRoot ? { uid: NOBODY, gid: NOBODY } : {},
  };
}

/** No bytecode files, no site packages of a user, nothing imported from the working directory. */
const FLAGS = ['-B', '-s', '-X', 'utf8', '-W', 'ignore'];

/** All that the program sees of it, but for PWD. */
export const PYTHON_ENVIRONMENT = {
  PATH: '/usr/bin',
  HOME: '/tmp',
  LANG: 'C.UTF-8',
  PYTHONHASHSEED: '0',
  PYTHONSAFEPATH: '1',
  // There is one thread; these libraries start several, and stop when they cannot.
  OPENBLAS_NUM_THREADS: '1',
  OMP_NUM_THREADS: '1',
};

function sandbox(): string[] {
  const readable = (path: string): string[] => ['--ro-bind-try', path, path];
  // Packages that were installed for this Python outside the system's own folder.
  const local = `/usr/local/lib/${basename(realpathSync(PYTHON))}`;
  const nodeModules = '/usr/lib/node_modules';
  return [
    ...['--unshare-all', '--unshare-user', '--disable-userns', '--die-with-parent'],
    ...['--new-session', '--cap-drop', 'ALL', '--uid', `${NOBODY}`, '--gid', `${NOBODY}`],
    ...['--hostname', 'sandbox', '--clearenv'],
    ...Object.entries(PYTHON_ENVIRONMENT).flatMap(([name, value]) => ['--setenv', name, value]),
    ...['/usr/bin', '/usr/lib', '/usr/lib64', '/usr/share/zoneinfo', local].flatMap(readable),
    ...readable('/etc/alternatives'),
    // Programs of Node that are installed for all may keep data beside themselves.
    ...(existsSync(nodeModules) ? ['--tmpfs', nodeModules] : []),
    ...['--symlink', 'usr/bin', '/bin', '--symlink', 'usr/lib', '/lib'],
    ...['--symlink', 'usr/lib64', '/lib64', '--proc', '/proc'],
    ...['--dev', '/dev', '--remount-ro', '/dev'],
    ...['--size', `${SHARED_MEMORY_BYTES}`, '--tmpfs', '/dev/shm'],
    ...['--size', `${LIMITS.pythonFileBytes}`, '--tmpfs', '/tmp', '--chdir', '/tmp'],
    ...['--remount-ro', '/', '--as-pid-1'],
  ];
}

/** Soft and hard ones alike, so that the program cannot raise them. */
function limits(timeoutMs: number): string[] {
  return [
    ...[PRLIMIT, `--as=${LIMITS.pythonMemoryBytes}`, `--cpu=${Math.ceil(timeoutMs / 1_000) + 1}`],
    ...['--nproc=1', `--fsize=${LIMITS.pythonFileBytes}`, '--core=0', '--nofile=64'],
    ...['--memlock=0', '--msgqueue=0', '--'],
  ];
}
