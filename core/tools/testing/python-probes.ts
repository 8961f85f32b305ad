/** Programs that try to leave the Python sandbox or to use up what it has, for its tests. */

/** What is tried, the program, and what its outcome must be. */
export const PROBES: readonly [string, string, RegExp][] = [
  // Processes and threads.
  ['a fork bomb', 'import os\nwhile True: os.fork()', /^tool_failed: .*BlockingIOError/],
  ['an orphan', 'import os\nos.fork() or os.setsid()', /^tool_failed: .*BlockingIOError/],
  ['a subprocess', 'import subprocess\nsubprocess.run(["id"])', /^tool_failed: .*Error/],
  ['a shell', 'import os\nos.system("id > /tmp/id")\nos.path.exists("/tmp/id")', /^ok: False$/],
  ['posix_spawn', 'import os\nos.posix_spawn("/bin/sh", ["sh"], {})', /^tool_failed: .*Blocking/],
  [
    'a thread',
    'import threading\nthreading.Thread(target=print).start()',
    /^tool_failed: .*can't start new thread/,
  ],
  [
    'a pool of processes',
    'import multiprocessing\nmultiprocessing.Pool(2).map(str, [1])',
    /^tool_failed: /,
  ],
  [
    'another program in the place of Python',
    'import os\nos.execv("/bin/sh", ["sh", "-c", "exec cat /etc/shadow"])',
    /^tool_failed: .*No such file/,
  ],
  [
    'signals to everyone',
    'import os, signal\nfor pid in [-1, 1, os.getppid()]:\n' +
      '  for number in [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP]:\n' +
      '    try: os.kill(pid, number)\n    except OSError: pass\n"still here"',
    /^ok: still here$/,
  ],
  [
    'other processes',
    'import os\n[p for p in os.listdir("/proc") if p.isdigit()] == [str(os.getpid())]',
    /^ok: True$/,
  ],
  // Files.
  ['/etc/passwd', 'open("/etc/passwd").read()', /FileNotFoundError/],
  ['a path upwards', 'open("/tmp/../../../../../etc/passwd")', /FileNotFoundError/],
  [
    'links',
    'import os\nos.symlink("/proc/1/root/etc/passwd", "/tmp/a")\nopen("/tmp/a").read()',
    /^tool_failed: .*(FileNotFound|Permission)Error/,
  ],
  [
    'the root of process 1',
    'import os\nsorted(os.listdir("/proc/1/root")), os.listdir("/proc/1/root/etc")',
    /^ok: \(\['bin', 'dev', 'etc', .*\], \['alternatives'\]\)$/,
  ],
  ['the working directory of process 1', 'open("/proc/1/cwd/etc/passwd")', /^tool_failed: /],
  [
    'memory of other processes',
    'import os\n[p for p in range(1, 5000) if p != os.getpid() and os.path.exists(f"/proc/{p}/mem")]',
    /^ok: \[\]$/,
  ],
  [
    'homes',
    'import os\n[os.path.exists(p) for p in ["/root", "/home", "/etc/hosts"]]',
    /^ok: (?!.*True)/,
  ],
  [
    'writing where it may not',
    'for path in ["/usr/bin/ramify-probe", "/usr/lib/ramify-probe", "/ramify-probe",\n' +
      '    "/dev/ramify-probe", "/proc/ramify-probe", "/usr/bin/python3", "/proc/self/exe",\n' +
      '    "/proc/1/exe"]:\n' +
      '  try: open(path, "wb").write(b"x"); print(path)\n  except OSError: pass',
    /^ok: None$/,
  ],
  [
    'files in the two places where it may',
    'for path in ["/tmp/ramify-probe", "/dev/shm/ramify-probe"]: open(path, "w").write("x")',
    /^ok: None$/,
  ],
  [
    'a hard link',
    'import os\nos.link("/usr/bin/python3", "/tmp/python")',
    /^tool_failed: .*OSError/,
  ],
  [
    'rights of a program',
    'import os\nos.chmod("/usr/bin/python3", 0o777)',
    /Read-only file system/,
  ],
  ['open files of the server', 'import os\nlen(os.listdir("/proc/self/fd"))', /^ok: 4$/],
  [
    'settings of the kernel',
    'for path in ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname",\n' +
      '    "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches", "/proc/sys/fs/file-max"]:\n' +
      '  try: open(path, "w").write("1"); print(path)\n  except OSError: pass',
    /^ok: None$/,
  ],
  // Devices.
  [
    'devices',
    'for name in ["mem", "kmem", "kmsg", "sda", "vda", "kvm", "fuse", "net/tun", "tty", "ptmx0"]:\n' +
      '  try: open("/dev/" + name, "rb"); print(name)\n  except OSError: pass',
    /^ok: None$/,
  ],
  [
    'a device of its own',
    'import os, stat\nos.mknod("/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0))',
    /^tool_failed: .*PermissionError/,
  ],
  // The network.
  ['an address', 'import socket\nsocket.create_connection(("1.1.1.1", 53), 1)', /unreachable/],
  [
    'UDP',
    'import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 53))',
    /unreachable/,
  ],
  ['names', 'import socket\nsocket.getaddrinfo("example.com", 80)', /gaierror/],
  [
    'raw packets',
    'import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)',
    /PermissionError/,
  ],
  ['interfaces', 'import socket\nsocket.if_nameindex()', /^ok: \[\(1, 'lo'\)/],
  ['a web page', 'import urllib.request\nurllib.request.urlopen("http://example.com")', /URLError/],
  // Who it is.
  ['the environment', 'import os\nsorted(os.environ)', /^ok: \['HOME', 'LANG', 'OMP/],
  [
    'the environment of process 1',
    '[text.split("=")[0] for text in open("/proc/1/environ").read().split(chr(0))]',
    /^ok: \['PATH', 'HOME', 'LANG', 'PYTHON\w+', 'PYTHON\w+', '\w+THREADS', '\w+THREADS', 'PWD', ''\]$/,
  ],
  [
    'becoming root',
    'import os\nos.setuid(0)',
    /^tool_failed: .*(Invalid argument|PermissionError)/,
  ],
  [
    'capabilities',
    '[line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")]',
    /^ok: \['0{16}'(, '0{16}'){4}\]$/,
  ],
  ['the name of the machine', 'import socket\nsocket.gethostname()', /^ok: sandbox$/],
  [
    'higher limits',
    'import resource\n' +
      'resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))',
    /^tool_failed: .*not allowed to raise maximum limit/,
  ],
  ['a higher priority', 'import os\nos.nice(-5)', /PermissionError/],
  [
    'real-time scheduling',
    'import os\nos.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))',
    /PermissionError/,
  ],
  // System calls by ctypes: all must fail.
  [
    'namespaces inside, mounts, roots, other processes, modules, the clock',
    'import ctypes\nlibc = ctypes.CDLL(None)\n' +
      'def no(what, result):\n  if result == 0: print(what)\n' +
      'for flag in [0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000]:\n' +
      '  no(hex(flag), libc.unshare(flag))\n' +
      'no("mount", libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))\n' +
      'no("remount", libc.mount(None, b"/", None, 32, None))\n' +
      'no("umount", libc.umount2(b"/proc", 2))\n' +
      'no("pivot_root", libc.syscall(155, b"/tmp", b"/tmp"))\n' +
      'no("chroot", libc.chroot(b"/tmp"))\n' +
      'no("setns", libc.setns(libc.open(b"/proc/1/ns/user", 0), 0))\n' +
      'no("ptrace", libc.ptrace(16, 1, None, None))\n' +
      'no("reboot", libc.reboot(0))\n' +
      'no("swapoff", libc.swapoff(b"/dev/zero"))\n' +
      'no("sethostname", libc.sethostname(b"x", 1))\n' +
      'no("init_module", libc.syscall(175, None, 0, b""))\n' +
      'no("settimeofday", libc.settimeofday(None, ctypes.byref((ctypes.c_int * 2)())))',
    /^ok: None$/,
  ],
  ['a terminal', 'import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSTI, b"x")', /OSError/],
  // Too much of something.
  ['two gigabytes', 'len(bytearray(2 * 1024 ** 3))', /MemoryError/],
  ['a list that grows', 'a = []\nwhile True: a.append(" " * 10 ** 6)', /MemoryError/],
  ['a mapped gigabyte', 'import mmap\nmmap.mmap(-1, 2 ** 30)', /Cannot allocate memory/],
  [
    'a zip bomb',
    'import gzip\nlen(gzip.decompress(gzip.compress(bytes(10 ** 7), 1) * 100))',
    /MemoryError/,
  ],
  ['a full disk', 'open("/tmp/a", "wb").write(bytes(64 * 1024 ** 2))', /File too large/],
  [
    'many files',
    'for i in range(100): open(f"/tmp/{i}", "wb").write(bytes(1024 ** 2))',
    /No space left on device/,
  ],
  ['shared memory', 'open("/dev/shm/a", "wb").write(bytes(8 * 1024 ** 2))', /No space left/],
  ['a sparse file', 'open("/tmp/a", "wb").truncate(2 ** 40)', /File too large/],
  ['many open files', '[open("/dev/null") for _ in range(1000)]', /Too many open files/],
  ['deep recursion', 'def f(): f()\nf()', /RecursionError/],
  ['nested code', 'eval("(" * 10 ** 5 + ")" * 10 ** 5)', /^tool_failed: /],
  ['a flood of output', 'while True: print("x" * 1000)', /printed more than 1048576 bytes/],
  [
    'a flood of errors',
    'import sys\nwhile True: sys.stderr.write("x" * 1000)',
    /printed more than 1048576 bytes/,
  ],
  ['a long line', 'print("x" * 10 ** 6)', /^ok: x{1000000}$/],
  ['half a sign', 'chr(0xd800)', /^tool_failed: .*UnicodeEncodeError/],
  [
    'bytes that are no text',
    'import os\nos.write(1, bytes([0xff, 0xfe, 65]))',
    /^ok: \uFFFD\uFFFDA3$/,
  ],
  // Ends that are no ends.
  ['a crash', 'import ctypes\nctypes.string_at(0)', /ended by signal 11/],
  ['an abort', 'import os\nos.abort()', /ended by signal \d+/],
  ['killing itself', 'import os\nos.kill(os.getpid(), 9)', /^ok: None$|ended by signal 9/],
  ['an early end', 'import os\nos._exit(0)', /^ok: None$/],
  ['an end that is an error', 'raise KeyboardInterrupt', /^tool_failed: .*KeyboardInterrupt/],
  [
    'an error that fails',
    'class E(Exception):\n  def __str__(self): raise self\nraise E()',
    /^tool_failed: /,
  ],
];

/** These would go on for ever, and take no more than they have. */
export const STOPPED_PROBES: readonly [string, string][] = [
  ['an endless loop', 'while True: pass'],
  ['a loop in C code', 'sum(range(10 ** 18))'],
  ['a power', '7 ** 10 ** 9'],
  ['a regular expression', 'import re\nre.match("(a+)+$", "a" * 60 + "b")'],
  ['a sort', 'sorted(range(10), key=lambda _: [0 for _ in iter(int, 1)])'],
  ['sleep', 'import time\ntime.sleep(10 ** 6)'],
  ['waiting for a signal', 'import signal\nsignal.pause()'],
  [
    'a program that catches everything',
    'import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n' +
      '  except (OSError, ValueError): pass\nwhile True:\n' +
      '  try:\n    while True: pass\n  except BaseException: pass',
  ],
  ['a program without output', 'import os\nfor n in (0, 1, 2): os.close(n)\nwhile True: pass'],
  [
    'a program that does not want to end with its parent',
    'import ctypes, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\ntime.sleep(10 ** 6)',
  ],
];

/** These end by a limit or by their time, whichever comes first. */
export const ENDING_PROBES: readonly [string, string][] = [
  [
    'files without content',
    'import os\nfor i in range(10 ** 9): os.close(os.open(f"/tmp/{i}", os.O_CREAT))',
  ],
  ['folders in folders', 'import os\nwhile True: os.mkdir("d"); os.chdir("d")'],
  ['a dictionary that grows', 'd = {}\nfor i in range(10 ** 12): d[i] = (i,)'],
  ['a number that grows', 'x = 3\nwhile True: x *= x'],
  [
    'names that are looked up for ever',
    'class D(dict):\n  __missing__ = lambda s, k: s[k, 1]\nD()[0]',
  ],
  ['a stack', 'import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): return f()\nf()'],
  ['pipes', 'import os\np = [os.pipe() for _ in range(10 ** 6)]'],
  ['timers', 'import signal\nsignal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\nwhile True: pass'],
];
