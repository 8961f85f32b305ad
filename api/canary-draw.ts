/**
 * Who gets the canary: a hash of the session decides, so a client stays on one side for as long as
 * the canary lasts, on every server and after every restart. The version is part of the hash: the
 * next canary takes other clients. Knows nothing of shares and policies.
 */
import { createHash } from 'node:crypto';

/** A number in [0, 1), evenly spread over keys; the canary gets those below its share. */
export function canaryDraw(key: string, version: number): number {
  const digest = createHash('sha256').update(`${version}\0${key}`).digest();
  return digest.readUIntBE(0, 6) / 2 ** 48;
}
