/** Is the process up, can it serve, and what does it offer. */
import { AppError } from '../../core/errors.ts';
import type { AppDeps } from '../app.ts';
import { json } from '../handlers.ts';
import type { Handlers, Schemas } from '../handlers.ts';

export function healthRoutes(
  deps: AppDeps,
): Pick<Handlers, 'getHealth' | 'getReadiness' | 'getOpenapi'> {
  return {
    getHealth: () => json<Schemas['Health']>({ status: 'ok' }),
    getReadiness: () => readiness(deps),
    getOpenapi: () =>
      new Response(deps.contract.text, {
        headers: { 'content-type': 'application/yaml; charset=utf-8' },
      }),
  };
}

function readiness(deps: AppDeps): Response {
  const stats = deps.engine.stats();
  if (stats.state !== 'ready') {
    throw new AppError('not_ready', `the engine is ${stats.state}`);
  }
  try {
    deps.checkStorage();
  } catch (cause) {
    throw new AppError('not_ready', 'the database cannot be written', { cause });
  }
  return json<Schemas['Readiness']>({
    status: 'ready',
    policy_version: deps.policies.liveVersion,
    engine: {
      versions: stats.versions,
      open_sequences: stats.openSequences,
      queued: stats.queued,
      running: stats.running,
    },
  });
}
