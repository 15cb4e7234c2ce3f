import { join } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import { createRoot, createTargets, expiresIn } from '../publish/release.ts';
import { signMetadata } from '../publish/sign.ts';
import { keyIdOf, type NamedKey } from '../trust/keys.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import { offlineDays } from '../publish/publisher.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags, KeyFlags {
  readonly onlineKey?: string;
  readonly json?: true;
}

/** Adds `inlay keys init`. */
export function addKeysInit(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('init')
    .description('create the offline keys, sign the first root and targets, and install them on the server');
  withServerFlags(withKeyFlags(command))
    .option(
      '--online-key <hex>',
      "the server's public key, to create everything without a network",
      parseHexKey,
    )
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      const platform = nodePlatform();
      const directory = openKeys(flags, terminal);
      await directory.assertVacant();
      const client = flags.onlineKey === undefined ? connect(flags, terminal) : undefined;
      const onlineKey = client ? await client.onlineKey() : namedKey(flags.onlineKey ?? '');
      // Refused before any key is written, so that the same command can be typed again.
      if (client && (await client.status()).root > 0) {
        throw new ServerError(
          'ERR_INLAY_CONFLICT',
          'The server has a root already; publish with the keys that made it, or use another server.',
        );
      }

      const { root, targets } = await directory.create();
      const now = platform.now();
      const rootBody = createRoot({
        rootKeys: [root],
        targetsKeys: [targets],
        onlineKey,
        expires: expiresIn(now, offlineDays.root),
      });
      const targetsBody = createTargets({ onlineKey, expires: expiresIn(now, offlineDays.targets) });
      const rootBytes = await signMetadata(rootBody, [root]);
      const targetsBytes = await signMetadata(targetsBody, [targets]);
      await directory.write('root.json', rootBytes);
      await directory.write('targets.json', targetsBytes);
      if (client) {
        try {
          await client.putRoot(rootBytes);
          await client.putTargets(targetsBytes);
        } catch (error) {
          terminal.printError(
            'The keys are written but not installed; run `inlay keys install` to try that again.',
          );
          throw error;
        }
      }

      const rootPath = join(directory.path, 'root.json');
      if (flags.json) {
        const installed = client !== undefined;
        const result = {
          keys: directory.path,
          root: rootPath,
          rootKey: root.keyid,
          targetsKey: targets.keyid,
          installed,
        };
        terminal.print(JSON.stringify(result));
        return;
      }
      terminal.print(
        `Keys in ${directory.path}: keep root.key.json and targets.key.json secret, and back them up.`,
      );
      terminal.print(`Embed ${rootPath} in your app; it is public.`);
      terminal.print(
        client
          ? '\nNext:\n  npx inlay publish MODEL.onnx --name NAME --version 1.0.0'
          : '\nNext, where the server can be reached:\n  npx inlay keys install',
      );
    });
}

function namedKey(hex: string): NamedKey {
  const key = { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: hex } };
  return { keyid: keyIdOf(nodePlatform(), key), key };
}

function parseHexKey(text: string): string {
  if (/^[0-9a-f]{64}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError('It is 64 hex digits, as `inlay server` prints them.');
}
