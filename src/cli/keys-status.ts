import { InvalidArgumentError, type Command } from 'commander';
import { isInlayError } from '../core/errors.ts';
import { toUtf8 } from '../core/bytes.ts';
import { nodePlatform } from '../platform-node.ts';
import { readCurrent } from '../publish/current.ts';
import { createKeyStatus, type KeyStatusOptions, type RoleStatus } from '../publish/key-status.ts';
import { countSignatures } from '../publish/root-draft.ts';
import { readDrafts } from '../publish/root-rotate.ts';
import type { Root } from '../trust/metadata.ts';
import { parseEnvelope } from '../trust/parse.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import type { KeyDirectory } from './key-directory.ts';
import type { KeySource } from './keys-sources.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags, KeyFlags {
  readonly warnDays: number;
  readonly offline?: true;
  readonly json?: true;
}

/** Exit codes besides those of every command. */
const exitCodes = { ok: 0, soon: 3, expired: 4 } as const;

/** Adds `inlay keys status`. */
export function addKeysStatus(keys: Command, terminal: Terminal, exitWith: (code: number) => void): void {
  const command = keys
    .command('status')
    .description('show who may sign what, until when, and what to do next')
    .addHelpText('after', '\nEnds with 3 if something expires soon and with 4 if something has expired.');
  withServerFlags(withKeyFlags(command))
    .option('--warn-days <number>', 'what expires within so many days is due', parseDays, 30)
    .option('--offline', 'do not ask the server')
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      const directory = openKeys(flags, terminal);
      const platform = nodePlatform();
      const { root, bodies, notes } = await look(flags, directory, terminal);
      const atHand = [...(await directory.stored()), ...(await askPrograms(directory, notes))];
      const now = platform.now();
      const roles = createKeyStatus({ now, warnDays: flags.warnDays, root, bodies, atHand });
      const waiting = await waitingDrafts(directory, root);
      const worst = roles.some(({ state }) => state === 'expired')
        ? 'expired'
        : roles.some(({ state }) => state === 'soon')
          ? 'soon'
          : 'ok';
      exitWith(exitCodes[worst]);
      if (flags.json) {
        terminal.print(JSON.stringify({ state: worst, roles, drafts: waiting, notes }));
        return;
      }
      for (const note of notes) terminal.printError(note);
      print(terminal, roles, waiting);
    });
}

interface Seen {
  readonly root: Root;
  readonly bodies: KeyStatusOptions['bodies'];
  /** What could not be looked at, and why. */
  readonly notes: string[];
}

/** Looks at the server as a device does, and at the folder alone where that cannot be. */
async function look(flags: Flags, directory: KeyDirectory, terminal: Terminal): Promise<Seen> {
  const local = async (): Promise<Seen> => {
    const root = parseEnvelope(await directory.root(), 'root').signed;
    const targets = await directory.read('targets.json');
    return { root, bodies: targets ? { targets: parseEnvelope(targets, 'targets').signed } : {}, notes: [] };
  };
  if (flags.offline) return local();
  try {
    const parts = { server: connect(flags, terminal), keys: directory, platform: nodePlatform() };
    const { root, targets, tip } = await readCurrent(parts);
    const bodies = {
      targets: targets.signed,
      timestamp: parseEnvelope(toUtf8(tip.timestamp), 'timestamp').signed,
      snapshot: parseEnvelope(toUtf8(tip.snapshot), 'snapshot').signed,
      rollout: parseEnvelope(toUtf8(tip.rollout), 'targets').signed,
    };
    return { root, bodies, notes: [] };
  } catch (error) {
    // Without a root there is nothing to look at here either.
    if (!isInlayError(error) || !(await directory.read('root.json'))) throw error;
    return { ...(await local()), notes: [`Only the folder was looked at: ${error.message} (${error.code})`] };
  }
}

/** A program that fails now can sign nothing now; everything else is worth knowing. */
async function askPrograms(directory: KeyDirectory, notes: string[]): Promise<readonly KeySource[]> {
  try {
    return await directory.commands();
  } catch (error) {
    if (!isInlayError(error)) throw error;
    notes.push(`${error.message} (${error.code})`);
    return [];
  }
}

interface WaitingDraft {
  readonly role: 'root' | 'targets';
  readonly version: number;
  /** Signatures that are missing, by version of the root whose keys they are of. */
  readonly missing: Readonly<Record<string, number>>;
}

async function waitingDrafts(directory: KeyDirectory, present: Root): Promise<readonly WaitingDraft[]> {
  const platform = nodePlatform();
  const { root, targets } = await readDrafts(directory);
  const next = root?.signed ?? present;
  const drafts: WaitingDraft[] = [];
  for (const [role, envelope, roots] of [
    ['root', root, [present, next]],
    ['targets', targets, [next]],
  ] as const) {
    if (!envelope) continue;
    const missing: Record<string, number> = {};
    for (const one of roots) {
      missing[one.version] = (await countSignatures(platform, envelope, one, role)).missing;
    }
    drafts.push({ role, version: envelope.signed.version, missing });
  }
  return drafts;
}

function print(terminal: Terminal, roles: readonly RoleStatus[], drafts: readonly WaitingDraft[]): void {
  const rows = roles.map(({ role, version, expires, daysLeft, threshold, keys, canSign, state }) => [
    role,
    String(version),
    expires.slice(0, 10),
    state === 'ok' ? String(daysLeft) : `${daysLeft} ${state === 'expired' ? 'EXPIRED' : 'SOON'}`,
    `${threshold} of ${keys.length}`,
    role === 'root' || role === 'targets' ? (canSign ? 'yes' : 'no') : 'server',
  ]);
  terminal.print(table(['role', 'version', 'expires', 'days', 'signed by', 'can sign here'], rows));
  const offline = roles.filter(({ role }) => role === 'root' || role === 'targets');
  const keys = offline.flatMap(({ role, keys: listed }) =>
    listed.map(({ keyid, scheme, at, sealed }) => [
      role,
      keyid.slice(0, 12),
      scheme,
      at === undefined ? 'elsewhere' : `${at}${sealed ? ' (sealed)' : ''}`,
    ]),
  );
  terminal.print(`\n${table(['role', 'key', 'scheme', 'where'], keys)}`);
  for (const { role, version, missing } of drafts) {
    const lack = Object.entries(missing)
      .filter(([, count]) => count > 0)
      .map(([root, count]) => `${count} of the keys of root ${root}`);
    terminal.print(
      `\nDraft of ${role} ${version}: ` +
        (lack.length === 0 ? 'ready for `inlay keys install`' : `lacks ${lack.join(' and ')}`),
    );
  }
  const next = new Set(
    roles.flatMap(({ role, next: todo }) => (todo === undefined ? [] : [`${role}: ${todo}`])),
  );
  if (next.size > 0) terminal.print(`\nNext:\n${[...next].map((line) => `  ${line}`).join('\n')}`);
}

function parseDays(text: string): number {
  const days = Number(text);
  if (/^\d{1,4}$/.test(text)) return days;
  throw new InvalidArgumentError('It is an integer from 0 to 9999.');
}
