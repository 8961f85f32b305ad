/**
 * `node dist/scripts/contract/schemathesis.js --program VENV/bin/st [--requests 20000 --seed 1]`,
 * a part of .ci/run: the built server on an empty data folder, and schemathesis, which makes
 * requests from the contract, fitting and not, and judges the answers. Rounds with rising seeds go
 * on until so many requests were answered. Fails on any finding, on an answer 500, on a failure
 * that the server logged, and when it does not answer or stop in order afterwards.
 *
 * Two processes test a share of the operations each: schemathesis's own threads share one
 * interpreter, and Python 3.11 fails in them now and then.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadContract } from '../../api/contract/contract.ts';
import { AppError } from '../../core/errors.ts';
import { packageRoot } from '../../core/paths.ts';
import { TestServer } from '../../test/support/server-process.ts';
import { judgeLog, primeServer, stopTraining } from './schemathesis-server.ts';
import type { Primed } from './schemathesis-server.ts';

const { values: flags } = parseArgs({
  options: {
    program: { type: 'string', default: 'st' },
    requests: { type: 'string', default: '20000' },
    seed: { type: 'string', default: '1' },
  },
});

const HOOKS = join(packageRoot, 'scripts', 'contract');
/** Two quiet cores need some minutes. */
const WHOLE_MS = 40 * 60_000;
const ROUNDS_MAX = 10;
/** Cases of an operation in a phase. */
const EXAMPLES = 400;

interface Share {
  name: string;
  operations: string[];
}

const contract = loadContract();
const idsOf = (...tags: string[]): string[] =>
  contract.operations.filter(({ tag }) => tags.includes(tag)).map(({ id }) => id);
const sampling = idsOf('chat', 'responses', 'agent');
const others = contract.operations.map(({ id }) => id).filter((id) => !sampling.includes(id));
const shares: Share[] = [
  { name: 'sampling', operations: sampling },
  { name: 'others', operations: others },
];

const folder = mkdtempSync(join(tmpdir(), 'ramify-schemathesis-'));
const server = new TestServer({
  dataFolder: join(folder, 'data'),
  flags: ['--tasks', 'none', '--device', 'cpu', '--log-level', 'info'],
});
const stopAt = performance.now() + WHOLE_MS;
try {
  await server.ready();
  const faults = await testContract(Number(flags.requests), Number(flags.seed));
  for (const fault of faults) console.log(`schemathesis: ${fault}`);
  console.log(`schemathesis: ${faults.length === 0 ? 'nothing found' : 'FAILED'}`);
  process.exitCode = faults.length === 0 ? 0 : 1;
} finally {
  await server.end('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
}

/** What is wrong; empty = nothing. */
async function testContract(requests: number, firstSeed: number): Promise<string[]> {
  const primed = await primeServer(server.url);
  const faults: string[] = [];
  let made = 0;
  for (let round = 0; made < requests && faults.length === 0; round++) {
    if (round === ROUNDS_MAX) {
      faults.push(`${made} requests in ${round} rounds, not ${requests}`);
      break;
    }
    const stopTrainingRuns = stopTraining(server.url);
    const ends = await Promise.all(
      shares.map((share) => runShare(share, firstSeed + round, round === 0, primed)),
    );
    await stopTrainingRuns();
    for (const end of ends) {
      made += end.requests;
      faults.push(...end.faults);
    }
    console.log(`schemathesis: ${made} requests`);
  }
  const ready = await fetch(`${server.url}/readyz`, { signal: AbortSignal.timeout(30_000) });
  if (ready.status !== 200) faults.push(`afterwards /readyz is ${ready.status}`);
  const { code, signal } = await server.end('SIGTERM');
  if (code !== 0) faults.push(`the server did not stop in order: ${code ?? signal}`);
  return [...faults, ...judgeLog(server.stderr, contract)];
}

/** One process of schemathesis over a share of the operations. */
async function runShare(
  { name, operations }: Share,
  seed: number,
  whole: boolean,
  primed: Primed,
): Promise<{ requests: number; faults: string[] }> {
  const report = join(folder, `${name}-${seed}.txt`);
  const argumentsOf = [
    ['--config-file', join(HOOKS, 'schemathesis.toml'), 'run', `${server.url}/openapi.yaml`],
    ['--header', `Authorization: Bearer ${primed.secret}`],
    ['--no-color', '--workers', '1', '--seed', String(seed), '--max-examples', String(EXAMPLES)],
    // The phase `coverage` is the same with every seed.
    ['--phases', whole ? 'examples,coverage,fuzzing,stateful' : 'fuzzing,stateful'],
    operations.flatMap((id) => ['--include-operation-id', id]),
  ].flat();
  const startedAt = performance.now();
  const { code, output } = await runProgram(argumentsOf, primed);
  writeFileSync(report, output);
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1);
  const requests = Number(/(\d+) generated/.exec(output)?.[1] ?? 0);
  console.log(`schemathesis: ${name}, seed ${seed}: ${requests} requests, ${seconds} s`);
  if (code === 0 && requests > 0) return { requests, faults: [] };
  console.log(readFileSync(report, 'utf8'));
  return { requests, faults: [`${name}, seed ${seed}: ended with ${code ?? 'a signal'}`] };
}

function runProgram(
  argumentsOf: readonly string[],
  { knownIds, keyId }: Primed,
): Promise<{ code: number | null; output: string }> {
  const child = spawn(flags.program, argumentsOf, {
    cwd: folder,
    env: {
      ...process.env,
      PYTHONPATH: HOOKS,
      SCHEMATHESIS_HOOKS: 'schemathesis_hooks',
      RAMIFY_KNOWN_IDS: JSON.stringify(knownIds),
      RAMIFY_OWN_KEY: keyId,
      PYTHONDONTWRITEBYTECODE: '1',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: Math.max(1, Math.ceil(stopAt - performance.now())),
    killSignal: 'SIGKILL',
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  }
  return new Promise((resolve, reject) => {
    child.once('close', (code) => resolve({ code, output }));
    child.once('error', (cause) =>
      reject(new AppError('config_invalid', `--program ${flags.program}: ${cause.message}`)),
    );
  });
}
