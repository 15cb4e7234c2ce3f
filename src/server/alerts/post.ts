/** Sends JSON to addresses that people typed in: not to this machine, nor to what clouds keep beside it. */

import { lookup as lookupAll, type LookupAddress } from 'node:dns';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { NetworkError, ServerError } from '../../core/errors.ts';

/** What is sent where. */
export interface PostRequest {
  readonly url: URL;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Lets loopback addresses through, for receivers on the same machine. */
  readonly allowLoopback: boolean;
  readonly signal: AbortSignal;
  /** Most milliseconds. Default 10,000. */
  readonly timeoutMs?: number;
}

const forbidden = /* @__PURE__ */ createForbidden();
const loopback = /* @__PURE__ */ createLoopback();

/** Link-local addresses and those of metadata services (RFC 3927, RFC 4291 §2.5.6), unspecified ones, multicast. */
function createForbidden(): BlockList {
  const list = new BlockList();
  list.addSubnet('0.0.0.0', 8, 'ipv4');
  list.addSubnet('169.254.0.0', 16, 'ipv4');
  list.addSubnet('224.0.0.0', 3, 'ipv4');
  // Metadata services of Alibaba and Oracle clouds, and of AWS over IPv6.
  list.addAddress('100.100.100.200', 'ipv4');
  list.addAddress('192.0.0.192', 'ipv4');
  list.addAddress('fd00:ec2::254', 'ipv6');
  list.addAddress('::', 'ipv6');
  list.addSubnet('fe80::', 10, 'ipv6');
  list.addSubnet('ff00::', 8, 'ipv6');
  // IPv4 behind a translator (RFC 6052 §2.1) would be let through as IPv6.
  list.addSubnet('64:ff9b::', 96, 'ipv6');
  return list;
}

function createLoopback(): BlockList {
  const list = new BlockList();
  list.addSubnet('127.0.0.0', 8, 'ipv4');
  list.addAddress('::1', 'ipv6');
  return list;
}

/** Tells whether notifications may go to an address. IPv4 addresses in IPv6 form count as what they are. */
export function isAllowed(address: string, allowLoopback: boolean): boolean {
  const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
  if (forbidden.check(address, family)) return false;
  return allowLoopback || !loopback.check(address, family);
}

/**
 * Posts JSON, and follows no redirection. Names are resolved once, and what is connected to is what was checked.
 * @throws {@link NetworkError} `ERR_INLAY_NETWORK` or `ERR_INLAY_HTTP_STATUS`, with `retryable` and `retryAfterMs` in its details;
 * {@link ServerError} `ERR_INLAY_REFUSED` for an address that is not allowed.
 */
export async function post(options: PostRequest): Promise<void> {
  const { url, body, headers, allowLoopback, signal, timeoutMs = 10_000 } = options;
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (isIP(host) !== 0 && !isAllowed(host, allowLoopback)) throw refusedAddress(url.hostname);
  const { status, retryAfter } = await new Promise<{ status: number; retryAfter: string | undefined }>(
    (resolve, reject) => {
      const fail = (cause: Error): void => {
        reject(cause instanceof ServerError ? cause : unreachable(url, cause));
      };
      const request = (url.protocol === 'https:' ? requestHttps : requestHttp)(
        url,
        {
          method: 'POST',
          headers: { ...headers, 'Content-Length': Buffer.byteLength(body) },
          lookup: guardedLookup(allowLoopback),
          signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
          agent: false,
        },
        (response) => {
          response.on('error', fail);
          response.resume();
          // What it says is of no interest, and may be endless.
          response.destroy();
          resolve({ status: response.statusCode ?? 0, retryAfter: response.headers['retry-after'] });
        },
      );
      request.on('error', fail);
      request.end(body);
    },
  );
  if (status >= 200 && status < 300) return;
  const isRetryable = status >= 500 || status === 408 || status === 425 || status === 429;
  throw new NetworkError(
    'ERR_INLAY_HTTP_STATUS',
    `The receiver at ${url.host} answered with status ${status}.`,
    {
      details: { status, retryable: isRetryable, retryAfterMs: delayOf(retryAfter) },
    },
  );
}

function guardedLookup(allowLoopback: boolean): LookupFunction {
  return (hostname, options, callback) => {
    lookupAll(hostname, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
      const [first] = addresses ?? [];
      if (error || !first) {
        callback(error ?? new Error(`no address of ${hostname}`), '', 0);
      } else if (addresses.every(({ address }) => isAllowed(address, allowLoopback))) {
        if (options.all) callback(null, addresses);
        else callback(null, first.address, first.family);
      } else {
        callback(refusedAddress(hostname), '', 0);
      }
    });
  };
}

/** Reads `Retry-After` (RFC 9110 §10.2.3), milliseconds; 0 where there is none. */
function delayOf(retryAfter: string | undefined): number {
  if (retryAfter === undefined) return 0;
  const ms = /^\d+$/.test(retryAfter) ? Number(retryAfter) * 1000 : Date.parse(retryAfter) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}

function refusedAddress(host: string): ServerError {
  return new ServerError(
    'ERR_INLAY_REFUSED',
    `Notifications do not go to ${host}: it is this machine, or an address that clouds keep for themselves.`,
    { details: { host } },
  );
}

function unreachable(url: URL, cause: Error): NetworkError {
  return new NetworkError('ERR_INLAY_NETWORK', `The receiver at ${url.host} cannot be reached.`, {
    details: { retryable: true },
    cause,
  });
}
