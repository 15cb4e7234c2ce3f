/** What a device sends: one report or several, plain or compressed. */

import { gunzipSync } from 'node:zlib';
import { ServerError, TrustError } from '../../core/errors.ts';
import { readReport } from '../../telemetry/report-reader.ts';
import type { Report } from '../../telemetry/report.ts';
import { isFields } from '../../trust/parse.ts';

/** Longest body after decompression, bytes. */
const MAX_PLAIN_BYTES = 1_048_576;
/** Longest report after decompression, characters of JSON. */
const mostCharacters = 65_536;

/** A request that was read. */
export interface ReportsRequest {
  readonly reports: readonly Report[];
  /** Reports that are none, as far as they can be named. */
  readonly refused: readonly { readonly epoch: string; readonly seq: number; readonly code: 'invalid' }[];
  /** How many are none. */
  readonly invalid: number;
  /** Device's clock when it sent this. */
  readonly sentAt: number | undefined;
}

/**
 * Reads `{ reports: [...], sent? }`, or one report. What cannot be a report does not keep the others from being counted.
 * @throws {@link ServerError} `ERR_INLAY_REPORT_INVALID` if there is no report in it, {@link TrustError} `ERR_INLAY_LENGTH`.
 */
export function readRequest(body: Uint8Array): ReportsRequest {
  const text = textOf(body);
  const value = parse(text);
  if (!isFields(value)) throw invalid('the body is no JSON object');
  const { reports = [value], sent } = value;
  if (!Array.isArray(reports) || reports.length === 0) throw invalid('`reports` is no list of reports');
  const read: Report[] = [];
  const refused: { epoch: string; seq: number; code: 'invalid' }[] = [];
  let problem = '';
  for (const one of reports as readonly unknown[]) {
    const result = isTooLong(text, one) ? { problem: 'it is too long' } : readReport(one);
    if (result.report) read.push(result.report);
    else {
      problem ||= result.problem;
      refused.push(...nameOf(one));
    }
  }
  if (read.length + refused.length === 0) throw invalid(problem);
  return {
    reports: read,
    refused,
    invalid: reports.length - read.length,
    sentAt: typeof sent === 'number' && sent >= 0 && sent <= Number.MAX_SAFE_INTEGER ? sent : undefined,
  };
}

/** Compressed or not is told by the first bytes (RFC 1952 §2.3.1): beacons cannot set headers. */
function textOf(body: Uint8Array): string {
  const isGzip = body[0] === 0x1f && body[1] === 0x8b;
  let plain = body;
  if (isGzip) {
    try {
      plain = gunzipSync(body, { maxOutputLength: MAX_PLAIN_BYTES });
    } catch (cause) {
      if ((cause as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE') throw tooLong(cause);
      throw invalid('the compressed body is damaged', cause);
    }
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(plain);
  } catch (cause) {
    throw invalid('the body is no UTF-8', cause);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw invalid('the body is no JSON', cause);
  }
}

/** Only a body that is longer than one report may be has to be looked at more closely. */
function isTooLong(text: string, value: unknown): boolean {
  if (text.length <= mostCharacters) return false;
  try {
    return JSON.stringify(value).length > mostCharacters;
  } catch {
    // Nested deeper than the stack, which takes more characters than that.
    return true;
  }
}

/** How a device knows a report that is refused, if it says so itself. */
function nameOf(value: unknown): { epoch: string; seq: number; code: 'invalid' }[] {
  if (!isFields(value)) return [];
  const { epoch, seq } = value;
  if (typeof epoch !== 'string' || !/^[\w-]{11}$/.test(epoch)) return [];
  return typeof seq === 'number' && Number.isSafeInteger(seq) && seq >= 0
    ? [{ epoch, seq, code: 'invalid' }]
    : [];
}

function invalid(problem: string, cause?: unknown): ServerError {
  return new ServerError(
    'ERR_INLAY_REPORT_INVALID',
    `There is no report in this request (${problem}); send what \`docs/protocol.md\` describes.`,
    { cause },
  );
}

function tooLong(cause: unknown): TrustError {
  return new TrustError(
    'ERR_INLAY_LENGTH',
    `The body has more than ${MAX_PLAIN_BYTES} bytes after decompression; send fewer reports at once.`,
    { cause },
  );
}
