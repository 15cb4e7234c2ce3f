/** Messages between the server and its signer process: one JSON object per line, in both directions. */

import type { Readable } from 'node:stream';
import { ServerError, type ErrorRecord } from '../../core/errors.ts';
import { isFields, isSize, type Fields } from '../../trust/parse.ts';
import type { OnlineSigner } from './port.ts';

/** What can be asked of the process. */
export type Verb = 'public' | 'rollout' | 'snapshot' | 'timestamp';

/** The answer to the question of the same number; 0 is for the start itself. */
export interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: ErrorRecord;
}

/** Longest line, characters: targets of 5 MB and roots, as JSON. */
const maxLine = 32 * 1024 * 1024;

/**
 * Calls `onLine` for each line of a stream.
 * @throws nothing; a line beyond the limit ends the stream.
 */
export function readLines(stream: Readable, onLine: (line: string) => void): void {
  let parts: string[] = [];
  let length = 0;
  stream.setEncoding('utf8');
  stream.on('data', (chunk: string) => {
    const [first = '', ...rest] = chunk.split('\n');
    parts.push(first);
    length += first.length;
    for (const next of rest) {
      const line = parts.join('');
      parts = [next];
      length = next.length;
      onLine(line);
    }
    if (length > maxLine) stream.destroy();
  });
}

/** Fields that each verb takes, by kind. */
const shapes: Readonly<Record<Exclude<Verb, 'public'>, Fields>> = {
  rollout: { version: 0, roots: [], targets: '', channels: {}, before: '' },
  snapshot: { version: 0, roots: [], targets: '', rollout: '' },
  timestamp: { version: 0, roots: [], targets: '', rollout: '', snapshot: '' },
};

/**
 * Asks a signer what came over the pipe. Nothing of it is believed: fields that a verb does not have are refused.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`, or what the signer throws.
 */
export async function ask(signer: OnlineSigner, question: unknown): Promise<unknown> {
  const { verb, body } = isFields(question) ? question : ({} as Fields);
  if (verb === 'public') return signer.public();
  const shape = verb === 'rollout' || verb === 'snapshot' || verb === 'timestamp' ? shapes[verb] : undefined;
  if (!shape || !isFields(body) || !fits(body, shape)) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      'The signer signs a timestamp, a snapshot or a rollout, each by its own fields, and nothing else.',
    );
  }
  if (verb === 'rollout') return signer.rollout(body as unknown as Parameters<OnlineSigner['rollout']>[0]);
  if (verb === 'snapshot') return signer.snapshot(body as unknown as Parameters<OnlineSigner['snapshot']>[0]);
  return signer.timestamp(body as unknown as Parameters<OnlineSigner['timestamp']>[0]);
}

function fits(body: Fields, shape: Fields): boolean {
  const names = Object.keys(body);
  return (
    names.length === Object.keys(shape).length &&
    names.every((name) => Object.hasOwn(shape, name) && isLike(body[name], shape[name]))
  );
}

function isLike(value: unknown, sample: unknown): boolean {
  if (Array.isArray(sample)) return Array.isArray(value) && value.every((text) => typeof text === 'string');
  if (typeof sample === 'number') return isSize(value);
  return typeof sample === 'string' ? typeof value === 'string' : isFields(value);
}
