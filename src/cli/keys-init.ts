import { join } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import { parsePublicKey } from '../publish/key-public.ts';
import { offlineDays } from '../publish/publisher.ts';
import { createTargets, expiresIn } from '../publish/release.ts';
import { createRoot } from '../publish/root.ts';
import { signMetadata } from '../publish/sign.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import { createPassphrases } from './passphrase.ts';
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
    .option('--no-passphrase', 'write plain key files, for tests and for machines that hold no other secret')
    .option(
      '--online-key <hex>',
      "the server's public key, to create everything without a network",
      parseOnlineKey,
    )
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      const platform = nodePlatform();
      const passphrases = createPassphrases(flags, terminal);
      const directory = openKeys(flags, terminal, passphrases);
      await directory.assertVacant();
      const client = flags.onlineKey === undefined ? connect(flags, terminal) : undefined;
      const onlineKey = client
        ? await client.onlineKey()
        : parsePublicKey(platform, flags.onlineKey ?? '', '--online-key');
      // Refused before any key is written, so that the same command can be typed again.
      if (client && (await client.status()).root > 0) {
        throw new ServerError(
          'ERR_INLAY_CONFLICT',
          'The server has a root already; publish with the keys that made it, or use another server.',
        );
      }

      const passphrase = await passphrases.toSeal(true);
      const { root, targets } = await directory.create(passphrase);
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
        const result = {
          keys: directory.path,
          root: rootPath,
          rootKey: root.keyid,
          targetsKey: targets.keyid,
          sealed: passphrase !== undefined,
          installed: client !== undefined,
        };
        terminal.print(JSON.stringify(result));
        return;
      }
      terminal.print(
        `Keys in ${directory.path}: keep root.key.json and targets.key.json secret, and back them up.`,
      );
      terminal.print(
        passphrase === undefined
          ? 'The key files are plain: whoever reads them can sign. INLAY_KEY_PASSPHRASE or --passphrase-file seals them.'
          : 'The key files are sealed: without the passphrase nobody can sign, you included.',
      );
      terminal.print(`Embed ${rootPath} in your app; it is public.`);
      terminal.print(
        client
          ? '\nNext:\n  npx inlay publish MODEL.onnx --name NAME --version 1.0.0'
          : '\nNext, where the server can be reached:\n  npx inlay keys install',
      );
    });
}

/** Checks `--online-key` of a command. */
export function parseOnlineKey(text: string): string {
  if (/^[0-9a-f]{64}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError('It is 64 hex digits, as `inlay server` prints them.');
}
