/**
 * Connections that reach only public addresses: a tool that fetches what a model names must not
 * become a way into the network around the server. The address is judged where the connection is
 * made, on what the name resolved to for this very connection, so that a name which changes its
 * answer between a check and its use gains nothing.
 */
import { lookup as systemLookup } from 'node:dns';
import type { LookupAddress, LookupOptions } from 'node:dns';
import { isIP } from 'node:net';
import type { LookupFunction } from 'node:net';
import ipaddr from 'ipaddr.js';
import { Agent, buildConnector } from 'undici';
import { AppError } from '../../errors.ts';
import { LIMITS } from '../../limits.ts';

/** As node:dns.lookup with `all`. */
export type Lookup = (
  host: string,
  options: LookupOptions & { all: true },
  done: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/** Public by their range, and yet services of a cloud to the machines in it. */
const CLOUD_ADDRESSES: ReadonlyMap<string, string> = new Map([
  ['168.63.129.16', "Azure's platform address"],
]);

/** Null, or what kind of address it is that keeps it from being public. */
export function privateKind(address: string): string | null {
  // An IPv6 zone (`fe80::1%eth0`) says through which interface, not where.
  if (!ipaddr.isValid(address)) return 'no address';
  // IPv4 in the clothes of IPv6 is judged as IPv4.
  const parsed = ipaddr.process(address);
  const range = parsed.range();
  return range === 'unicast' ? (CLOUD_ADDRESSES.get(parsed.toString()) ?? null) : range;
}

export interface GuardOptions {
  lookup?: Lookup;
  /** Judges an address: null, or why it must not be reached; `privateKind` when left out. */
  faultOf?: (address: string) => string | null;
}

/** An undici agent that reaches what `faultOf` lets it. */
export function guardedAgent(options: GuardOptions = {}): Agent {
  const { lookup = systemLookup, faultOf = privateKind } = options;
  const guarded: LookupFunction = (host, lookupOptions, done) => {
    lookup(host, { ...lookupOptions, all: true }, (error, addresses) => {
      const fault = error ?? firstFault(host, addresses, faultOf);
      if (fault !== null) return done(fault, []);
      if (lookupOptions.all === true) return done(null, addresses);
      const [first] = addresses;
      done(null, first?.address ?? '', first?.family);
    });
  };
  const connect = buildConnector({ lookup: guarded, timeout: LIMITS.httpConnectTimeoutMs });
  return new Agent({
    connect: (target, done) => {
      // An address is not looked up.
      const host = target.hostname.replace(/^\[|\]$/g, '');
      const kind = isIP(host) === 0 ? null : faultOf(host);
      if (kind === null) connect(target, done);
      else done(refusal(host, kind), null);
    },
    connections: LIMITS.toolConcurrencyMax,
    maxHeaderSize: LIMITS.httpHeaderBytesMax,
  });
}

/** One private address among several is refused too: a public name has no reason to have it. */
function firstFault(
  host: string,
  addresses: readonly LookupAddress[],
  faultOf: (address: string) => string | null,
): AppError | null {
  if (addresses.length === 0) return new AppError('tool_failed', `${host} has no address`);
  for (const { address } of addresses) {
    const kind = faultOf(address);
    if (kind !== null) return refusal(host, kind);
  }
  return null;
}

function refusal(host: string, kind: string): AppError {
  const why = `${host} is not a public address (${kind})`;
  return new AppError('tool_failed', `${why}; allow_private of the operation allows it`);
}
