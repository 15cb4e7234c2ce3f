import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { SMTPServer, type SMTPServerOptions } from 'smtp-server';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createAlerts } from '../../src/server/alerts/alerts.ts';
import {
  alertmanagerAlerts,
  createChannels,
  mailMessage,
  slackMessage,
} from '../../src/server/alerts/channels.ts';
import { readContact, type Contact } from '../../src/server/alerts/contact.ts';
import type { AlertNotification } from '../../src/server/alerts/notification.ts';
import { createOutboxJob } from '../../src/server/alerts/outbox.ts';
import { isAllowed } from '../../src/server/alerts/post.ts';
import { signWebhook, verifyWebhook } from '../../src/server/alerts/signature.ts';
import { findProgram } from './kept.ts';
import { openCounts } from './server-fleet-counts.ts';

const start = Date.parse('2026-03-10T10:00:00Z');
const { signal } = new AbortController();

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** A receiver that answers with the statuses in turn, then with 200. */
async function receiver(
  answers: (number | 'hang up' | { status: number; headers: Record<string, string> })[] = [],
) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      received.push({ path: request.url ?? '', headers: request.headers, body });
      const answer = answers.shift() ?? 200;
      if (answer === 'hang up') {
        request.socket.destroy();
        return;
      }
      const { status, headers } = typeof answer === 'number' ? { status: answer, headers: {} } : answer;
      response.writeHead(status, headers);
      response.end('thank you');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(
    () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  const { port } = server.address() as AddressInfo;
  return { received, url: `http://127.0.0.1:${port}` };
}

const hostile = '</b><img src=x onerror=alert(1)> & <!channel> *a*';
const notification: AlertNotification = {
  v: 1,
  kind: 'alerts',
  at: start,
  status: 'firing',
  level: 'critical',
  labels: { model: 'digits' },
  alerts: [
    {
      fingerprint: 'f1',
      rule: 'errors',
      title: 'Zu viele Fehler — schlimm',
      status: 'firing',
      level: 'critical',
      labels: { model: 'digits', version: hostile },
      value: 0.5,
      text: '50 % of calls failed',
      startsAt: start - 60_000,
      endsAt: 0,
      ackedBy: null,
      runbook: 'https://example.org/errors',
    },
  ],
  repeatS: 14_400,
};

async function world(options: { allowLoopback?: boolean; env?: Record<string, string> } = {}) {
  const { db } = await openCounts();
  closers.push(() => db.destroy());
  const clock = { now: start };
  const errors: unknown[] = [];
  const alerts = createAlerts({
    db,
    drift: { rows: () => Promise.resolve([]), profiles: () => Promise.resolve([]) },
    platform: { now: () => clock.now, random: () => 0.5 },
    env: { INLAY_ALERT_SECRET: 's3cret', ...options.env },
    allowLoopback: options.allowLoopback ?? true,
    onError: (error) => errors.push(error),
  });
  return {
    db,
    alerts,
    clock,
    errors,
    send: async (afterMs = 0) => {
      clock.now += afterMs;
      await alerts.jobs[1]?.run(clock.now, signal);
      return (await alerts.deliveries()).map(({ state, attempts }) => `${state} ${attempts}`);
    },
  };
}

describe('webhooks', () => {
  it('are signed, with a key that stays the same', async () => {
    const { received, url } = await receiver([503]);
    const { alerts, send, clock } = await world();
    await alerts.putContact({
      id: 'hook',
      kind: 'webhook',
      url: `${url}/in`,
      secretEnv: 'INLAY_ALERT_SECRET',
    });
    const key = await alerts.testContact('hook');
    expect(await send()).toEqual(['waiting 1']);
    expect(await send(5000)).toEqual(['delivered 2']);
    expect(received.map(({ path, headers }) => [path, headers['idempotency-key']])).toEqual([
      ['/in', key],
      ['/in', key],
    ]);
    const [first, second] = received;
    expect(first?.body).toBe(second?.body);
    expect(JSON.parse(second?.body ?? '')).toMatchObject({ v: 1, kind: 'test' });
    const header = String(second?.headers['inlay-signature']);
    const nowS = Math.floor(clock.now / 1000);
    expect(verifyWebhook(header, second?.body ?? '', 's3cret', nowS)).toBe(true);
    expect(verifyWebhook(header, `${second?.body} `, 's3cret', nowS)).toBe(false);
    expect(verifyWebhook(header, second?.body ?? '', 'other', nowS)).toBe(false);
    expect(verifyWebhook(header, second?.body ?? '', 's3cret', nowS + 301)).toBe(false);
    expect(header).not.toBe(first?.headers['inlay-signature']);
  });

  it('are refused with any other header', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (header, body) => {
        expect(verifyWebhook(header, body, 's', 1000)).toBe(false);
      }),
    );
    expect(verifyWebhook(signWebhook('s', 'body', 1000), 'body', 's', 1000)).toBe(true);
  });

  it('wait as long as the receiver asks', async () => {
    const { url } = await receiver([{ status: 429, headers: { 'Retry-After': '120' } }]);
    const { alerts, send } = await world();
    await alerts.putContact({ id: 'hook', kind: 'slack', url });
    await alerts.testContact('hook');
    expect(await send()).toEqual(['waiting 1']);
    expect(await send(119_000)).toEqual(['waiting 1']);
    expect(await send(1000)).toEqual(['delivered 2']);
  });

  it.each([400, 404, 302, 410])(
    'are given up at once at status %i, and can be sent again by hand',
    async (status) => {
      const { url, received } = await receiver([
        { status, headers: { Location: 'http://169.254.169.254/' } },
      ]);
      const { alerts, send } = await world();
      await alerts.putContact({ id: 'hook', kind: 'slack', url });
      const key = await alerts.testContact('hook');
      expect(await send()).toEqual(['dead 1']);
      expect((await alerts.deliveries())[0]?.error).toContain(String(status));
      expect(await send(3_600_000)).toEqual(['dead 1']);
      await alerts.redeliver(key);
      expect(await send()).toEqual(['delivered 1']);
      expect(received).toHaveLength(2);
      await expect(alerts.redeliver(key)).rejects.toMatchObject({ code: 'ERR_INLAY_NOT_FOUND' });
    },
  );

  it('are given up after many tries, within two days', async () => {
    const { url } = await receiver(Array.from({ length: 40 }, () => 'hang up' as const));
    const { alerts, send, clock } = await world();
    await alerts.putContact({ id: 'hook', kind: 'slack', url });
    await alerts.testContact('hook');
    let state = '';
    while (!state.startsWith('dead')) {
      [state = ''] = await send(600_000);
      expect(clock.now - start).toBeLessThan(2 * 86_400_000);
    }
    expect(state).toBe('dead 16');
    expect(clock.now - start).toBeGreaterThan(2 * 3_600_000);
  });

  it('are sent again with the same key after a crash between sending and noting it', async () => {
    const { db } = await world();
    const sent: string[] = [];
    const row = { contact: 'hook', key: 'k1', body: JSON.stringify(notification) };
    await db
      .insertInto('outbox')
      .values({ ...row, attempts: 0, next_at: 0, done_at: 0, error: '' })
      .execute();
    const contact = readContact({ id: 'hook', kind: 'slack', url: 'https://example.org/' });
    await db
      .insertInto('contact')
      .values({ id: 'hook', kind: 'slack', body: JSON.stringify(contact) })
      .execute();
    const controller = new AbortController();
    const job = (crashes: boolean) =>
      createOutboxJob({
        db,
        platform: { now: () => start, random: () => 0.5 },
        deliver: (_contact, _notification, key) => {
          sent.push(key);
          if (!crashes) return Promise.resolve();
          controller.abort();
          return Promise.reject(new Error('the process ends'));
        },
        onError: () => undefined,
      });
    await job(true).run(start, controller.signal);
    await job(false).run(start, signal);
    await job(false).run(start, signal);
    expect(sent).toEqual(['k1', 'k1']);
  });

  it('do not go to this machine, to metadata services, nor where names lead there', async () => {
    const { received, url } = await receiver();
    const port = new URL(url).port;
    const { alerts, send } = await world({
      allowLoopback: false,
      env: { INLAY_ALERT_URL: `http://169.254.169.254/latest/meta-data` },
    });
    const urls = [
      url,
      `http://localhost:${port}`,
      `http://[::1]:${port}`,
      `http://0x7f000001:${port}`,
      `http://0:${port}`,
    ];
    for (const [i, each] of urls.entries()) {
      await alerts.putContact({ id: `hook${i}`, kind: 'slack', url: each });
      await alerts.testContact(`hook${i}`);
    }
    await alerts.putContact({ id: 'env', kind: 'slack', urlEnv: 'INLAY_ALERT_URL' });
    await alerts.testContact('env');
    expect(await send()).toEqual(Array.from({ length: 6 }, () => 'dead 1'));
    expect(received).toEqual([]);
    for (const { error } of await alerts.deliveries()) expect(error).toContain('Notifications do not go to');
  });

  it('tell addresses apart', () => {
    const forbidden = [
      '169.254.169.254',
      '::ffff:169.254.169.254',
      'fe80::1',
      'fd00:ec2::254',
      '0.0.0.0',
      '::',
      '224.0.0.1',
    ];
    for (const address of forbidden) expect(isAllowed(address, true)).toBe(false);
    for (const address of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) {
      expect([isAllowed(address, false), isAllowed(address, true)]).toEqual([false, true]);
    }
    for (const address of ['10.1.2.3', '93.184.216.34', '2606:2800::1'])
      expect(isAllowed(address, false)).toBe(true);
  });

  it('say which secret is missing', async () => {
    const { alerts, send } = await world();
    await alerts.putContact({
      id: 'hook',
      kind: 'webhook',
      url: 'https://example.org/',
      secretEnv: 'INLAY_ALERT_GONE',
    });
    await alerts.testContact('hook');
    expect(await send()).toEqual(['dead 1']);
    expect((await alerts.deliveries())[0]?.error).toContain('INLAY_ALERT_GONE');
  });
});

describe('messages', () => {
  it('for Slack carry no markup from names', () => {
    const { text } = slackMessage(notification, 'https://inlay.example/dashboard/#alerts');
    expect(text).toContain('&lt;/b&gt;&lt;img src=x onerror=alert(1)&gt; &amp; &lt;!channel&gt; ·a·');
    expect(text.replace('<https://inlay.example/dashboard/#alerts|Dashboard>', '')).not.toMatch(/[<>]/);
  });

  it('for an Alertmanager have its times and names', async () => {
    const { received, url } = await receiver();
    const deliver = createChannels({
      platform: { now: () => start },
      env: { INLAY_ALERT_TOKEN: 't0ken' },
      allowLoopback: true,
      dashboardUrl: 'https://inlay.example/dashboard/',
    });
    const contact = readContact({
      id: 'am',
      kind: 'alertmanager',
      url: `${url}/prefix`,
      tokenEnv: 'INLAY_ALERT_TOKEN',
    });
    await deliver(contact, notification, 'k', signal);
    expect(received[0]?.path).toBe('/prefix/api/v2/alerts');
    expect(received[0]?.headers.authorization).toBe('Bearer t0ken');
    expect(JSON.parse(received[0]?.body ?? '')).toEqual([
      {
        labels: { alertname: 'errors', source: 'inlay', model: 'digits', version: hostile },
        annotations: {
          severity: 'critical',
          summary: 'Zu viele Fehler — schlimm',
          description: '50 % of calls failed',
          runbook_url: 'https://example.org/errors',
        },
        startsAt: '2026-03-10T09:59:00.000Z',
        endsAt: '2026-03-10T18:00:00.000Z',
        generatorURL: 'https://inlay.example/dashboard/#alerts',
      },
    ]);
    const [first, ...others] = notification.alerts;
    const ended = { ...notification, alerts: first ? [{ ...first, endsAt: start }, ...others] : [] };
    expect(alertmanagerAlerts(ended)[0]?.endsAt).toBe('2026-03-10T10:00:00.000Z');
  });

  it('by mail keep to the form of mails, whatever names are like', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (title) => {
        const alerts = notification.alerts.map((alert) => ({ ...alert, title }));
        const contact = { from: 'inlay@example.org', to: ['a@example.org', 'b@example.org'] };
        const message = mailMessage(contact, { ...notification, alerts }, 'k', start);
        const [head = '', ...rest] = message.split('\r\n\r\n');
        const lines = message.split('\r\n');
        expect(rest).toHaveLength(1);
        expect(lines.every((line) => /^[\x20-\x7e]{0,998}$/.test(line) && !line.startsWith('.'))).toBe(true);
        expect(head.split(/\r\n(?! )/).map((line) => line.split(':')[0])).toEqual([
          'From',
          'To',
          'Subject',
          'Date',
          'Message-ID',
          'Auto-Submitted',
          'MIME-Version',
          'Content-Type',
          'Content-Transfer-Encoding',
        ]);
      }),
    );
  });
});

const openssl = findProgram('openssl');
if (!openssl) console.log('Skipped: there is no `openssl` here to make certificates for mail servers.');

describe.skipIf(!openssl)('mail', () => {
  let folder = '';
  let key = '';
  let cert = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'inlay-mail-'));
    const [keyFile, certFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    execFileSync(
      openssl ?? '',
      ['req', '-x509', ...curve, '-keyout', keyFile, '-out', certFile, '-days', '2', ...subject],
      {
        stdio: 'ignore',
      },
    );
    key = readFileSync(keyFile, 'utf8');
    cert = readFileSync(certFile, 'utf8');
  });
  afterAll(() => {
    rmSync(folder, { recursive: true });
  });

  async function mailServer(options: SMTPServerOptions = {}) {
    const mails: { from: string; to: string[]; user: unknown; isSecure: boolean; text: string }[] = [];
    const server = new SMTPServer({
      key,
      cert,
      authOptional: true,
      disableReverseLookup: true,
      onAuth: ({ username, password }, _session, callback) => {
        if (username === 'inlay' && password === 'pässword') callback(null, { user: username });
        else callback(new Error('wrong password'));
      },
      onData: (stream, session, callback) => {
        const chunks: Buffer[] = [];
        stream.on('data', (chunk: Buffer) => chunks.push(chunk));
        stream.on('end', () => {
          const { mailFrom, rcptTo } = session.envelope;
          mails.push({
            from: mailFrom ? mailFrom.address : '',
            to: rcptTo.map(({ address }) => address),
            user: session.user,
            isSecure: session.secure,
            text: Buffer.concat(chunks).toString(),
          });
          callback();
        });
      },
      ...options,
    });
    server.on('error', () => undefined);
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    closers.push(() => new Promise((resolve) => server.close(() => resolve())));
    const { port } = server.server.address() as AddressInfo;
    return { mails, port };
  }

  function contactOf(port: number, more: Record<string, unknown> = {}): Contact {
    const people = { from: 'inlay@example.org', to: ['ada@example.org', 'bob@example.org'] };
    return readContact({ id: 'mail', kind: 'email', host: 'localhost', port, ...people, ...more });
  }

  const withAuth = { user: 'inlay', passwordEnv: 'INLAY_ALERT_MAIL' };
  const deliverWith = (ca: string | undefined, password = 'pässword') =>
    createChannels({ platform: { now: () => start }, env: { INLAY_ALERT_MAIL: password }, mailCa: ca });

  it.each(['starttls', 'tls', 'plain'] as const)('goes out by %s', async (security) => {
    const { mails, port } = await mailServer({
      secure: security === 'tls',
      hideSTARTTLS: security === 'plain',
    });
    const contact = contactOf(port, { security, ...(security !== 'plain' && withAuth) });
    await deliverWith(cert)(contact, notification, 'k1', signal);
    const [mail] = mails;
    expect(mail).toMatchObject({
      from: 'inlay@example.org',
      to: ['ada@example.org', 'bob@example.org'],
      isSecure: security !== 'plain',
    });
    expect(mail?.user).toBe(security === 'plain' ? undefined : 'inlay');
    const [head = '', body = ''] = (mail?.text ?? '').split('\r\n\r\n');
    expect(head).toContain('Message-ID: <k1@example.org>');
    const subject = [...head.matchAll(/=\?utf-8\?B\?([^?]+)\?=/g)].map(([, word]) =>
      Buffer.from(word ?? '', 'base64').toString(),
    );
    expect(subject.join('')).toBe(`Critical: Zu viele Fehler — schlimm (model digits, version ${hostile})`);
    expect(Buffer.from(body, 'base64').toString()).toContain('[critical] Zu viele Fehler — schlimm');
  });

  it.each(['starttls', 'tls'] as const)(
    'does not go to a server without a good certificate by %s',
    async (security) => {
      const { mails, port } = await mailServer({ secure: security === 'tls' });
      const contact = contactOf(port, { security, ...withAuth });
      await expect(deliverWith(undefined)(contact, notification, 'k1', signal)).rejects.toMatchObject({
        code: 'ERR_INLAY_NETWORK',
      });
      const elsewhere = { ...contact, host: '127.0.0.1' } as Contact;
      await expect(deliverWith(cert)(elsewhere, notification, 'k1', signal)).rejects.toMatchObject({
        code: 'ERR_INLAY_NETWORK',
      });
      expect(mails).toEqual([]);
    },
  );

  it('does not fall back to plain text where STARTTLS is hidden', async () => {
    const { mails, port } = await mailServer({ hideSTARTTLS: true });
    await expect(
      deliverWith(cert)(contactOf(port, withAuth), notification, 'k1', signal),
    ).rejects.toMatchObject({
      details: { step: 'STARTTLS', retryable: false },
    });
    expect(mails).toEqual([]);
  });

  it('is not tried again where the server refuses for good, and is where it does for now', async () => {
    const { port } = await mailServer();
    const wrong = deliverWith(cert, 'wrong')(contactOf(port, withAuth), notification, 'k1', signal);
    await expect(wrong).rejects.toMatchObject({ details: { step: 'AUTH', code: 535, retryable: false } });
    await expect(wrong).rejects.not.toThrow('wrong password');
    const busy = Object.assign(new Error('later'), { responseCode: 451 });
    const later = await mailServer({
      onRcptTo: (_address, _session, callback) => {
        callback(busy);
      },
    });
    await expect(deliverWith(cert)(contactOf(later.port), notification, 'k1', signal)).rejects.toMatchObject({
      details: { step: 'RCPT', code: 451, retryable: true },
    });
  });

  it('does not take what came before TLS for an answer', async () => {
    const server = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      socket.write('220 hello\r\n');
      socket.on('data', (chunk) => {
        const line = chunk.toString();
        if (line.startsWith('EHLO')) socket.write('250-me\r\n250 STARTTLS\r\n');
        else if (line.startsWith('STARTTLS')) socket.write('220 go\r\n250-me\r\n250 AUTH PLAIN\r\n');
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closers.push(() => new Promise((resolve) => server.close(() => resolve())));
    const { port } = server.address() as AddressInfo;
    await expect(
      deliverWith(cert)(contactOf(port, withAuth), notification, 'k1', signal),
    ).rejects.toMatchObject({
      details: { step: 'STARTTLS' },
    });
  });

  it('is a failure that passes where nobody listens', async () => {
    const { port } = await mailServer();
    await Promise.all(closers.splice(0).map((close) => close()));
    await expect(deliverWith(cert)(contactOf(port), notification, 'k1', signal)).rejects.toMatchObject({
      code: 'ERR_INLAY_NETWORK',
      details: { retryable: true },
    });
  });
});
