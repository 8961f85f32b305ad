/** The log as lines, out and in, as streams of any length. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AppError, toAppError } from '../../core/errors.ts';
import { LIMITS } from '../../core/limits.ts';
import type { AppDeps } from '../app.ts';
import { bodyLines } from '../body-lines.ts';
import { exportStream } from '../export-stream.ts';
import { json } from '../handlers.ts';
import type { Handlers, Input, Schemas } from '../handlers.ts';
import { TrajectoryImport } from '../trajectory-import.ts';
import { readTrajectoryLine } from '../trajectory-lines.ts';
import { filterOf } from '../trajectory-query.ts';

type ExportOperation = 'exportTrajectories' | 'importTrajectories';

export function exportRoutes(deps: AppDeps): Pick<Handlers, ExportOperation> {
  return {
    exportTrajectories: (input) => exportTrajectories(deps, input),
    importTrajectories: (input) => importTrajectories(deps, input),
  };
}

async function exportTrajectories(
  { stores, logger }: AppDeps,
  { query, header, requestId, activity }: Input<'exportTrajectories'>,
): Promise<Response> {
  const compressed = acceptsGzip(header['Accept-Encoding'] ?? '');
  const task = { path: stores.path(), filter: filterOf(query), compressed };
  const { body, ended } = await exportStream(task, activity.signal);
  activity.hold();
  void ended.then((trajectories) => {
    logger.info({ requestId, trajectories }, 'export ended');
    activity.release();
  });
  return new Response(body, {
    headers: {
      'content-type': 'application/x-ndjson',
      'content-disposition': 'attachment; filename="trajectories.jsonl"',
      vary: 'accept-encoding',
      ...(compressed && { 'content-encoding': 'gzip' }),
    },
  });
}

/** `gzip` or `*` is named and not refused by q=0. */
function acceptsGzip(header: string): boolean {
  return header.split(',').some((part) => {
    const [coding = '', ...parameters] = part.split(';').map((one) => one.trim().toLowerCase());
    const refused = parameters.some((one) => /^q=0(\.0*)?$/.test(one));
    return (coding === 'gzip' || coding === '*') && !refused;
  });
}

async function importTrajectories(
  { stores }: AppDeps,
  { stream, header, activity }: Input<'importTrajectories'>,
): Promise<Response> {
  const imported = new TrajectoryImport(stores);
  const lines = bodyLines(stream, {
    compressed: header['Content-Encoding'] === 'gzip',
    bytesMax: LIMITS.importBytesMax,
    signal: activity.signal,
  });
  for await (const { number, text } of lines) {
    try {
      await imported.add(readTrajectoryLine(text));
    } catch (thrown) {
      await imported.flush();
      throw atLine(number, thrown);
    }
    await nextTurn();
  }
  await imported.flush();
  const { created, known, feedback } = imported.counts;
  return json<Schemas['TrajectoryImport']>({
    object: 'trajectory.import',
    ...{ created, known, feedback },
    unknown_policy_versions: imported.unknownVersions.slice(0, VERSIONS_TOLD),
  });
}

const VERSIONS_TOLD = 1_000;

function atLine(number: number, thrown: unknown): AppError {
  const { code, message } = toAppError(thrown);
  return new AppError(code, `line ${number}: ${message}`, {
    param: `line ${number}`,
    cause: thrown,
  });
}
