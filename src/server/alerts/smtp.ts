/**
 * Hands a message to a mail server (RFC 5321): with TLS from the first byte, after STARTTLS (RFC 3207), or without. With TLS the
 * server's certificate is checked in either case, and there is no way back to plain text.
 */

import { hostname } from 'node:os';
import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import { NetworkError } from '../../core/errors.ts';

/** A message, and where it goes. */
export interface Mail {
  readonly host: string;
  readonly port: number;
  readonly security: 'starttls' | 'tls' | 'plain';
  readonly user?: string | undefined;
  readonly password?: string | undefined;
  readonly from: string;
  readonly to: readonly string[];
  /** Headers and body, lines ended by CR LF, none of which begins with a dot or is longer than 998 characters. */
  readonly message: string;
  /** Certificates that are trusted beside those of Node, PEM. */
  readonly ca?: string | undefined;
  readonly signal: AbortSignal;
  /** Most milliseconds for all of it. Default 30,000. */
  readonly timeoutMs?: number;
}

/** Longest reply, characters. */
const MOST_REPLY = 65_536;

interface Reply {
  readonly code: number;
  readonly lines: readonly string[];
}

/** Commands and replies over a socket. */
interface Wire {
  /** Sends a line, if any, and waits for a reply with one of the codes. */
  ask(line: string | undefined, step: string, ...codes: readonly number[]): Promise<Reply>;
  /** Lets go of the socket. @returns whether everything that came was asked for. */
  release(): boolean;
}

/**
 * Sends a message.
 * @throws {@link NetworkError} `ERR_INLAY_NETWORK`; `retryable` in its details is false if the server refused for good.
 */
export async function sendMail(mail: Mail): Promise<void> {
  const { host, port, security, user, password, from, to, message, timeoutMs = 30_000 } = mail;
  const signal = AbortSignal.any([mail.signal, AbortSignal.timeout(timeoutMs)]);
  let socket = security === 'tls' ? connectTls({ ...tlsOptions(mail), port }) : connect({ host, port });
  const abort = (): void => {
    socket.destroy(new Error('The mail took too long.'));
  };
  signal.addEventListener('abort', abort, { once: true });
  try {
    await opened(socket, security === 'tls' ? 'secureConnect' : 'connect');
    let wire = openWire(socket);
    const greet = (): Promise<Reply> => wire.ask(`EHLO ${ownName()}`, 'EHLO', 250);
    await wire.ask(undefined, 'greeting', 220);
    let features = await greet();
    if (security === 'starttls') {
      if (!offers(features, 'STARTTLS')) throw refused('STARTTLS', 0, false);
      await wire.ask('STARTTLS', 'STARTTLS', 220);
      // What came before TLS was not said by whom the certificate names.
      if (!wire.release()) throw refused('STARTTLS', 0, false);
      socket = connectTls({ ...tlsOptions(mail), socket });
      await opened(socket, 'secureConnect');
      wire = openWire(socket);
      features = await greet();
    }
    if (user !== undefined && password !== undefined) await logIn(wire, features, user, password);
    await wire.ask(`MAIL FROM:<${from}>`, 'MAIL', 250);
    for (const mailbox of to) await wire.ask(`RCPT TO:<${mailbox}>`, 'RCPT', 250, 251);
    await wire.ask('DATA', 'DATA', 354);
    await wire.ask(`${message}\r\n.`, 'message', 250);
    // It has the message; how it says good-bye changes nothing.
    socket.end('QUIT\r\n');
  } catch (error) {
    if (error instanceof NetworkError) throw error;
    throw new NetworkError('ERR_INLAY_NETWORK', `The mail server at ${host}:${port} cannot be used.`, {
      details: { retryable: true },
      cause: error,
    });
  } finally {
    signal.removeEventListener('abort', abort);
    socket.on('error', () => undefined);
    if (!socket.writableEnded) socket.destroy();
    else socket.destroySoon();
  }
}

async function logIn(wire: Wire, features: Reply, user: string, password: string): Promise<void> {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  if (offers(features, 'AUTH', 'PLAIN')) {
    await wire.ask(`AUTH PLAIN ${base64(`\0${user}\0${password}`)}`, 'AUTH', 235);
  } else {
    await wire.ask('AUTH LOGIN', 'AUTH', 334);
    await wire.ask(base64(user), 'AUTH', 334);
    await wire.ask(base64(password), 'AUTH', 235);
  }
}

function tlsOptions({ host, ca }: Mail): ConnectionOptions {
  return {
    host,
    ...(isIP(host) === 0 && { servername: host }),
    ...(ca !== undefined && { ca }),
    minVersion: 'TLSv1.2',
  };
}

function opened(socket: Socket, event: 'connect' | 'secureConnect'): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('close', () => {
      reject(new Error('The connection was closed.'));
    });
    socket.once(event, () => {
      socket.off('error', reject);
      resolve();
    });
  });
}

function openWire(socket: Socket): Wire {
  let text = '';
  let failure: Error | undefined;
  let wake: (() => void) | undefined;
  const take = (chunk: Buffer): void => {
    text += chunk.toString('latin1');
    if (text.length > MOST_REPLY) socket.destroy(new Error('The reply is too long.'));
    wake?.();
  };
  const fail = (error?: Error): void => {
    failure ??= error ?? new Error('The connection was closed.');
    wake?.();
  };
  const close = (): void => {
    fail();
  };
  socket.on('data', take);
  socket.on('error', fail);
  socket.on('close', close);

  const reply = async (): Promise<Reply> => {
    for (;;) {
      const end = /^\d{3}(?: [^\n]*)?\n/m.exec(text);
      if (end) {
        const length = end.index + end[0].length;
        const lines = text.slice(0, length).trimEnd().split(/\r?\n/);
        text = text.slice(length);
        return { code: Number(lines.at(-1)?.slice(0, 3)), lines: lines.map((line) => line.slice(4)) };
      }
      if (failure) throw failure;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };

  return {
    ask: async (line, step, ...codes) => {
      if (line !== undefined) socket.write(`${line}\r\n`);
      const answer = await reply();
      if (!codes.includes(answer.code)) throw refused(step, answer.code, answer.code < 500);
      return answer;
    },
    release: () => {
      socket.off('data', take);
      socket.off('close', close);
      return text === '';
    },
  };
}

function offers({ lines }: Reply, feature: string, kind?: string): boolean {
  return lines.some((line) => {
    const [name, ...kinds] = line.toUpperCase().split(/[ =]/);
    return name === feature && (kind === undefined || kinds.includes(kind));
  });
}

function ownName(): string {
  const name = hostname();
  return /^[a-zA-Z0-9.-]{1,253}$/.test(name) ? name : 'localhost';
}

/** Only codes are passed on: texts of servers may repeat what they were told. */
function refused(step: string, code: number, retryable: boolean): NetworkError {
  const why = code === 0 ? 'does not offer it as it should' : `answered with ${code}`;
  return new NetworkError('ERR_INLAY_NETWORK', `The mail server refused at ${step}: it ${why}.`, {
    details: { step, code, retryable },
  });
}
