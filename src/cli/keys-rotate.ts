import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import { isInlayError, ServerError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import type { Current } from '../publish/current.ts';
import { parsePublicKey } from '../publish/key-public.ts';
import { compareRoots } from '../publish/root-draft.ts';
import {
  assertNoDraft,
  installDrafts,
  proposeRoot,
  readAndKeep,
  type Installed,
  type RotationParts,
} from '../publish/root-rotate.ts';
import type { OfflineRole, RootChange } from '../publish/root.ts';
import type { NamedKey } from '../trust/keys.ts';
import type { Root } from '../trust/metadata.ts';
import { isFields, parseEnvelope } from '../trust/parse.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import type { AddedKey, KeyDirectory } from './key-directory.ts';
import { parseOnlineKey } from './keys-init.ts';
import { createPassphrases, type Passphrases } from './passphrase.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags, KeyFlags {
  readonly addRoot?: number;
  readonly addPublic?: readonly string[];
  readonly remove?: readonly string[];
  readonly threshold?: number;
  readonly rootThreshold?: number;
  readonly targets?: true;
  readonly targetsThreshold?: number;
  readonly online?: true;
  readonly onlineKey?: string;
  readonly draft?: true;
  readonly json?: true;
}

/** Adds `inlay keys rotate`. */
export function addKeysRotate(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('rotate')
    .description(
      'change which keys count: make the next root, sign it with the keys at hand, and install it',
    );
  withServerFlags(withKeyFlags(command))
    .option('--add-root <number>', 'create this many root keys more', parseCount)
    .option(
      '--add-public <file...>',
      'add public keys of other people or machines, as `keys export` writes them',
    )
    .option('--remove <keyid...>', 'take keys away; the first 6 digits are enough')
    .option('--threshold <number>', 'how many root keys sign the next roots', parseCount)
    .option('--root-threshold <number>', 'the same as --threshold', parseCount)
    .option('--targets', 'create a targets key in place of those there are')
    .option('--targets-threshold <number>', 'how many targets keys sign', parseCount)
    .option('--online', 'trust the key that the server has now')
    .option('--online-key <hex>', 'trust this key of the server', parseOnlineKey)
    .option('--draft', 'only write the next root down, for others to sign')
    .option('--no-passphrase', 'write plain key files')
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      const platform = nodePlatform();
      const passphrases = createPassphrases(flags, terminal);
      const directory = openKeys(flags, terminal, passphrases);
      const server = connect(flags, terminal);
      const withoutOnlineKey = flags.online === true || flags.onlineKey !== undefined;
      const parts = { server, keys: directory, platform, withoutOnlineKey };
      await directory.root();
      const isBegun = (await directory.drafts()).length > 0;
      if (isBegun && !flags.draft) {
        const done = await installDrafts(parts);
        if (!flags.json)
          terminal.print('This completes the change that was begun before; nothing else was changed.');
        printInstalled(terminal, directory, done, flags);
        return;
      }

      // Before any key is made.
      await assertNoDraft(directory);
      const current = await readOrDraft(parts, flags, terminal);
      const present = parseEnvelope(await directory.root(), 'root').signed;
      const onlineKey =
        flags.onlineKey === undefined
          ? flags.online && (await server.onlineKey())
          : parsePublicKey(platform, flags.onlineKey, '--online-key');
      if (flags.online && onlineKey) assertOtherKey(onlineKey, present, current);
      const change = await toChange(flags, present, directory, passphrases, terminal.cwd);
      const proposed = await proposeRoot(parts, { ...change, ...(onlineKey && { onlineKey }) }, current);
      if (flags.draft) {
        printDraft(terminal, directory, proposed, flags);
        return;
      }
      printInstalled(terminal, directory, await installDrafts(parts), flags);
    });
}

/** Prints what was installed. */
export function printInstalled(
  terminal: Terminal,
  { path }: Pick<KeyDirectory, 'path'>,
  done: Installed,
  { json }: { readonly json?: true },
): void {
  if (json) {
    terminal.print(JSON.stringify(done));
    return;
  }
  const { root, targets, installed } = done;
  terminal.print(`Installed: root ${root}, targets ${targets}.`);
  if (!installed.includes('root')) return;
  terminal.print(
    `Devices follow by themselves; embed ${join(path, 'root.json')} in the next release of your app.`,
  );
}

/** Prints what a draft changes and what comes next. */
export function printDraft(
  terminal: Terminal,
  { path }: Pick<KeyDirectory, 'path'>,
  proposed: { readonly file: string; readonly present: Root; readonly root: Root },
  { json }: { readonly json?: true },
): void {
  const file = join(path, proposed.file);
  const changes = compareRoots(proposed.present, proposed.root);
  if (json) {
    terminal.print(JSON.stringify({ draft: file, version: proposed.root.version, changes }));
    return;
  }
  terminal.print(`Draft of root ${proposed.root.version} in ${file}`);
  for (const line of describeChanges(proposed.present, proposed.root)) terminal.print(`  ${line}`);
  terminal.print(`\nNext, wherever there is a root key:\n  npx inlay keys sign ${file}`);
  terminal.print('and here, with the files that come back:\n  npx inlay keys install [FILE...]');
}

/** Says in lines what a root changes. */
export function describeChanges(before: Root | undefined, after: Root): readonly string[] {
  const changes = compareRoots(before, after).map(({ role, threshold: [, to], added, removed }) => {
    const parts = [
      `${to} of ${after.roles[role].keyids.length} keys`,
      ...added.map((id) => `+ ${id.slice(0, 12)}`),
      ...removed.map((id) => `- ${id.slice(0, 12)}`),
    ];
    return `${role}: ${parts.join('  ')}`;
  });
  return [...changes, `valid until ${after.expires}`];
}

/** Reads a file of a public key. A file that names no role is of a root key. */
export async function readPublicKey(path: string, from: string): Promise<AddedKey> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new ServerError('ERR_INLAY_NOT_FOUND', `The file ${from} cannot be read; name another one.`, {
      cause,
    });
  });
  return { ...parsePublicKey(nodePlatform(), text, from), role: roleIn(text) ?? 'root' };
}

/** Refuses to trust the server's key once more: whoever asks for that thinks that it is another one. */
function assertOtherKey({ keyid }: NamedKey, present: Root, current: Current | undefined): void {
  const { roles = [] } = current?.targets.signed.delegations ?? {};
  const delegated = roles.find(({ name }) => name === 'rollout');
  const isTrusted = [
    present.roles.timestamp,
    present.roles.snapshot,
    ...(delegated ? [delegated] : []),
  ].every(({ keyids }) => keyids.length === 1 && keyids[0] === keyid);
  if (!isTrusted) return;
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The server still has the key ${keyid.slice(0, 12)}; stop it, delete online-key.json in its data folder, start it ` +
      'again, and repeat this command.',
    { details: { keyid } },
  );
}

/** Without a network, a draft is made upon the root that is known here. */
async function readOrDraft(
  parts: RotationParts,
  { draft }: Flags,
  terminal: Terminal,
): Promise<Current | undefined> {
  try {
    return await readAndKeep(parts);
  } catch (error) {
    if (!draft || !isInlayError(error) || error.name !== 'NetworkError') throw error;
    terminal.printError('The server cannot be reached; the draft follows the root.json of this folder.');
    return undefined;
  }
}

async function toChange(
  flags: Flags,
  present: Root,
  directory: KeyDirectory,
  passphrases: Passphrases,
  cwd: string,
): Promise<Omit<RootChange, 'expires'>> {
  const { addRoot = 0, addPublic = [], remove = [], targets = false } = flags;
  const rootThreshold = flags.threshold ?? flags.rootThreshold;
  const { targetsThreshold } = flags;
  const listed = new Set([...present.roles.root.keyids, ...present.roles.targets.keyids]);
  const given = await Promise.all(addPublic.map((file) => readPublicKey(resolve(cwd, file), file)));
  const others = [...(await directory.added()), ...given].filter(({ keyid }) => !listed.has(keyid));
  const isOther = flags.online === true || flags.onlineKey !== undefined;
  const hasNumbers = rootThreshold !== undefined || targetsThreshold !== undefined;
  if (addRoot + others.length + remove.length === 0 && !targets && !isOther && !hasNumbers) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      'There is nothing to change; say what with --add-root, --add-public, --remove, --threshold, --targets or ' +
        '--online, or sign the same anew with `inlay keys renew`.',
    );
  }
  const removed = [
    ...remove.map((prefix) => keyIdBy(prefix, present)),
    ...(targets ? present.roles.targets.keyids : []),
  ];
  const create = keyMaker(directory, passphrases, listed);
  const of = (role: OfflineRole): readonly NamedKey[] =>
    others.filter((key) => key.role === role).map(({ keyid, key }) => ({ keyid, key }));
  return {
    addRoot: [...of('root'), ...(await create('root', addRoot))],
    addTargets: [...of('targets'), ...(await create('targets', targets ? 1 : 0))],
    remove: [...new Set(removed)],
    ...(rootThreshold !== undefined && { rootThreshold }),
    ...(targetsThreshold !== undefined && { targetsThreshold }),
  };
}

/** Makes keys; those that an interrupted command left behind come first, so that none are made in vain. */
function keyMaker(
  directory: KeyDirectory,
  passphrases: Passphrases,
  listed: ReadonlySet<string>,
): (role: OfflineRole, count: number) => Promise<readonly NamedKey[]> {
  return async (role, count) => {
    if (count === 0) return [];
    const files = (await directory.stored()).filter(({ kind }) => kind === 'file');
    const made: NamedKey[] = files
      .filter((source) => source.role === role && !listed.has(source.keyid))
      .slice(0, count)
      .map(({ keyid, key }) => ({ keyid, key }));
    if (made.length === count) return made;
    // Whoever opens the present keys is not asked for another passphrase.
    const sealed = files.find(({ isSealed }) => isSealed);
    await sealed?.open();
    const passphrase = await passphrases.toSeal(sealed !== undefined);
    while (made.length < count) {
      const { keyid, key } = await directory.createKey(role, passphrase);
      made.push({ keyid, key });
    }
    return made;
  };
}

function keyIdBy(prefix: string, { roles }: Root): string {
  const all = [...new Set([...roles.root.keyids, ...roles.targets.keyids])];
  const [found, ...more] = prefix.length < 6 ? [] : all.filter((id) => id.startsWith(prefix.toLowerCase()));
  if (found !== undefined && more.length === 0) return found;
  throw new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `There is no one key ${prefix} in root and targets; \`inlay keys status\` lists them.`,
  );
}

function roleIn(text: string): OfflineRole | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const role = isFields(value) ? value['role'] : undefined;
    return role === 'root' || role === 'targets' ? role : undefined;
  } catch {
    // Hex and PEM name no role.
    return undefined;
  }
}

function parseCount(text: string): number {
  const count = Number(text);
  if (/^\d{1,2}$/.test(text) && count > 0) return count;
  throw new InvalidArgumentError('It is an integer from 1 to 99.');
}
