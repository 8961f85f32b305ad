/**
 * The client of a ramify server: openapi-fetch with the types of openapi.yaml, and what it has no
 * notion of: errors as a class, and event streams, those of runs with resuming.
 */
export { createClient } from './client.ts';
export type { ClientOptions, RamifyClient, Schemas } from './client.ts';
export { RamifyError, StreamBrokenError, unwrap } from './errors.ts';
export type { ErrorCode } from './errors.ts';
export { readEvents } from './events.ts';
export type { ServerEvent } from './events.ts';
export { followAgentRun, followTrainingRun, startAgentRun, streamChat } from './streams.ts';
export type { FollowOptions } from './streams.ts';
export type { components, operations, paths } from './openapi.gen.ts';
