import { resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { defaultServer } from './connection.ts';
import { parseDuration } from './rollout-options.ts';
import { addServerMigrate } from './server-migrate.ts';
import type { Terminal } from './terminal.ts';

interface Flags {
  readonly host: string;
  readonly port: number;
  readonly data: string;
  readonly database?: string;
  readonly role: 'primary' | 'replica';
  readonly primary?: string;
  readonly newToken?: true;
  readonly requireDeviceKey?: true;
  readonly trustProxy?: true;
  readonly lookEvery?: number;
  readonly otlpUrl?: string;
  readonly publicUrl?: string;
  readonly allowLoopback?: true;
  readonly signer: 'process' | 'inline';
  readonly json?: true;
}

/** Adds `inlay server` and what belongs to it. */
export function addServer(program: Command, terminal: Terminal): void {
  const server = program
    .command('server')
    .description('run a sync server until it is interrupted')
    .enablePositionalOptions()
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <number>', 'port to listen on; 0 takes any free one', parsePort, 8787)
    .option('--data <dir>', 'folder of the database, the models and the online key', './inlay-data')
    .option('--database <url>', 'PostgreSQL instead of a file in that folder (default: $INLAY_DATABASE_URL)')
    .addOption(
      new Option('--role <role>', 'sign and run the jobs, or serve beside the server that does')
        .choices(['primary', 'replica'])
        .default('primary'),
    )
    .option('--primary <url>', 'where a replica sends those who ask for what has to be signed')
    .option('--new-token', 'replace the admin token, for when it was lost')
    .option('--require-device-key', 'take reports only with a key of the role device')
    .option('--trust-proxy', 'count requests by the last address of X-Forwarded-For, as behind a proxy')
    .option(
      '--look-every <time>',
      'time between two looks of the guards at a rollout (default: 1m)',
      parseDuration,
    )
    .option('--otlp-url <url>', 'push metrics over OTLP/HTTP, such as to http://127.0.0.1:4318')
    .option('--public-url <url>', 'where people reach this server, for links in notifications')
    .option('--allow-loopback', 'let notifications go to this machine')
    .addOption(
      new Option('--signer <where>', 'keep the online key in a process of its own, or in this one')
        .choices(['process', 'inline'])
        .default('process'),
    )
    .option('--json', 'print one line of JSON once it listens')
    .addHelpText('after', environment)
    .action(async (flags: Flags) => {
      const { data, json, primary, lookEvery, ...options } = flags;
      const dataDir = resolve(terminal.cwd, data);
      const interrupted = terminal.interrupted();
      // Other commands start sooner without all that a server is made of.
      const { startServer } = await import('../server/node.ts');
      const running = await startServer({
        ...options,
        dataDir,
        env: terminal.env,
        ...(primary !== undefined && { primaryUrl: primary }),
        ...(lookEvery !== undefined && { lookEveryMs: Math.max(1, lookEvery) * 1000 }),
      });
      const { url, token, onlineKey } = running;
      if (json) {
        terminal.print(JSON.stringify({ url, ...(token !== undefined && { token }), onlineKey, dataDir }));
      } else {
        terminal.print(`Inlay sync server on ${url}`);
        terminal.print(`Data in ${dataDir}; online key ${onlineKey.key.keyval.public}`);
        terminal.print(`Dashboard on ${url}/dashboard`);
        if (token !== undefined) terminal.print(firstSteps(url, token));
      }
      await interrupted;
      await running.close();
    });
  addServerMigrate(server, terminal);
}

const environment = `
Environment:
  INLAY_DATABASE_URL    postgres://… of the database
  INLAY_S3_ENDPOINT     S3-compatible storage of the models, with INLAY_S3_BUCKET, INLAY_S3_REGION,
                        INLAY_S3_ACCESS_KEY_ID, INLAY_S3_SECRET_ACCESS_KEY and INLAY_S3_PREFIX
  INLAY_OIDC_ISSUER     provider that people sign in at, with INLAY_OIDC_AUDIENCE, INLAY_OIDC_ROLE_CLAIM
                        and INLAY_OIDC_ROLES (ml-admins=admin,ml-team=publisher)
  INLAY_ALERT_…         secrets that contacts of alerts name
  OTEL_EXPORTER_OTLP_HEADERS  headers for --otlp-url, such as api-key=…`;

function firstSteps(url: string, token: string): string {
  const lines = [
    '',
    'Admin token, shown this once:',
    `  ${token}`,
    '',
    'Next, in another terminal:',
    `  export INLAY_TOKEN=${token}${url === defaultServer ? '' : ` INLAY_SERVER=${url}`}`,
    '  npx inlay keys init',
    '  npx inlay publish MODEL.onnx --name NAME --version 1.0.0',
  ];
  return lines.join('\n');
}

function parsePort(text: string): number {
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port < 65_536) return port;
  throw new InvalidArgumentError('It is an integer from 0 to 65535.');
}
