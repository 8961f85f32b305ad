/** Declared HTTP operations as tools of the agent. */
import { LIMITS } from '../../limits.ts';
import type { Tool } from '../../ports.ts';
import { guardedAgent } from './address-guard.ts';
import type { GuardOptions } from './address-guard.ts';
import type { HttpOperation } from './declaration.ts';
import { callHttp } from './http-request.ts';

export interface HttpTools {
  tools: Tool[];
  /** Ends all connections. */
  stop(): Promise<void>;
}

export function httpTools(
  operations: readonly HttpOperation[],
  options: GuardOptions = {},
): HttpTools {
  const agents = {
    guarded: guardedAgent(options),
    open: guardedAgent({ ...options, faultOf: () => null }),
  };
  const tools = operations.map((operation): Tool => {
    const { name, description, parameters, effects, timeoutMs, retriesMax } = operation;
    const dispatcher = operation.allowPrivate ? agents.open : agents.guarded;
    return {
      ...{ name, description, parameters, effects, timeoutMs, retriesMax },
      primaryArgument: primaryArgument(parameters),
      concurrencyMax: LIMITS.httpConcurrencyMax,
      run: (args, signal) => callHttp(operation, args, { dispatcher, signal }),
    };
  });
  const stop = async (): Promise<void> => {
    await Promise.all([agents.guarded.destroy(), agents.open.destroy()]);
  };
  return { tools, stop };
}

/** The first that is demanded, else the first. */
function primaryArgument({ properties, required }: Record<string, unknown>): string {
  const [demanded] = Array.isArray(required) ? (required as string[]) : [];
  return demanded ?? Object.keys(properties ?? {})[0] ?? 'input';
}
