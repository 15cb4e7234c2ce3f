import { resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { startServer } from '../server/node.ts';
import { defaultServer } from './connection.ts';
import type { Terminal } from './terminal.ts';

interface Flags {
  readonly host: string;
  readonly port: number;
  readonly data: string;
  readonly newToken?: true;
  readonly signer: 'process' | 'inline';
  readonly json?: true;
}

/** Adds `inlay server`. */
export function addServer(program: Command, terminal: Terminal): void {
  program
    .command('server')
    .description('run a sync server until it is interrupted')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <number>', 'port to listen on; 0 takes any free one', parsePort, 8787)
    .option('--data <dir>', 'folder of the database, the models and the online key', './inlay-data')
    .option('--new-token', 'replace the admin token, for when it was lost')
    .addOption(
      new Option('--signer <where>', 'keep the online key in a process of its own, or in this one')
        .choices(['process', 'inline'])
        .default('process'),
    )
    .option('--json', 'print one line of JSON once it listens')
    .action(async (flags: Flags) => {
      const { host, port, data, newToken = false, signer } = flags;
      const dataDir = resolve(terminal.cwd, data);
      const interrupted = terminal.interrupted();
      const server = await startServer({ host, port, dataDir, newToken, signer, env: terminal.env });
      const { url, token, onlineKey } = server;
      if (flags.json) {
        terminal.print(JSON.stringify({ url, ...(token !== undefined && { token }), onlineKey, dataDir }));
      } else {
        terminal.print(`Inlay sync server on ${url}`);
        terminal.print(`Data in ${dataDir}; online key ${onlineKey.key.keyval.public}`);
        if (token !== undefined) terminal.print(firstSteps(url, token));
      }
      await interrupted;
      await server.close();
    });
}

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
