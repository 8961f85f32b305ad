/**
 * Makes a checkout runnable: checks Node, installs the locked packages and builds dist/ and
 * client/dist/, each only when something changed. Plain Node with no packages, because it runs
 * before any are installed.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCE_FOLDERS = ['api', 'bench', 'client', 'core', 'db', 'scripts', 'test'];

checkNode();
step('packages', packagesKey(), join(ROOT, 'node_modules', '.ramify-setup'), installPackages);
step('build', sourcesKey(), join(ROOT, 'dist', '.ramify-setup'), build);

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const ok = (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major >= 24;
  if (!ok) fail(`ramify needs Node 20.19, 22.12, 24 or later; this is ${process.versions.node}.`);
}

/** Runs `work` unless the stamp file holds this key, and stamps afterwards. */
function step(name, key, stamp, work) {
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === key) return;
  console.log(`setup: ${name}`);
  work();
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, key);
}

function packagesKey() {
  const lock = readFileSync(join(ROOT, 'package-lock.json'));
  const abi = `${process.versions.modules} ${process.platform} ${process.arch}`;
  return createHash('sha256').update(lock).update(abi).digest('hex');
}

function installPackages() {
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
}

/** Path, size and time of every source: cheap, and a false alarm only costs a rebuild. */
function sourcesKey() {
  const hash = createHash('sha256').update(packagesKey());
  const add = (file) => {
    const { size, mtimeMs } = statSync(file);
    hash.update(`${file} ${size} ${mtimeMs}\n`);
  };
  add(join(ROOT, 'tsconfig.json'));
  for (const folder of SOURCE_FOLDERS.filter((name) => existsSync(join(ROOT, name)))) {
    const files = readdirSync(join(ROOT, folder), { recursive: true }).map(String).sort();
    const made = /node_modules|^dist\b|^src\Wopenapi\.gen/;
    const own = files.filter((file) => file.endsWith('.ts') && !made.test(file));
    for (const file of own) add(join(ROOT, folder, file));
  }
  return hash.digest('hex');
}

/**
 * A fresh tree each time: a file that was deleted or renamed must not live on in dist/. It is made
 * beside dist/ and moved there whole, so a failed build leaves the old one, and a running server
 * never finds its trainer half written.
 */
function build() {
  run(process.execPath, [join(ROOT, 'client', 'build.mjs')]);
  const dist = join(ROOT, 'dist');
  const fresh = join(ROOT, 'node_modules', '.ramify-build');
  rmSync(fresh, { recursive: true, force: true });
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const notIncremental = ['--incremental', 'false', '--tsBuildInfoFile', 'null'];
  run(process.execPath, [tsc, '-p', ROOT, '--outDir', fresh, ...notIncremental]);
  rmSync(dist, { recursive: true, force: true });
  renameSync(fresh, dist);
}

function run(command, args) {
  const shell = process.platform === 'win32';
  const { status, error } = spawnSync(command, args, { cwd: ROOT, stdio: 'inherit', shell });
  if (error) fail(`${command}: ${error.message}`);
  if (status !== 0) fail(`${[command, ...args].join(' ')} failed with exit code ${status}.`);
}

function fail(message) {
  console.error(`setup: ${message}`);
  process.exit(1);
}
