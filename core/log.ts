/**
 * What core may say about its own work. api/ passes in pino; tests and libraries may pass `quiet`.
 */

export interface Logger {
  debug(fields: Record<string, unknown>, message: string): void;
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

const ignore = (): void => undefined;

export const quiet: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };
