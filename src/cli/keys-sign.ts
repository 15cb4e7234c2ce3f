import { access, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import { countSignatures, type Draft, type SignatureCount } from '../publish/root-draft.ts';
import { readDrafts, signDraft } from '../publish/root-rotate.ts';
import type { OfflineRole } from '../publish/root.ts';
import { encodeEnvelope } from '../publish/sign.ts';
import { parseStrictJson } from '../trust/canonical-json.ts';
import type { Envelope, Root } from '../trust/metadata.ts';
import { isFields, parseEnvelope } from '../trust/parse.ts';
import { openKeys, withKeyFlags, type KeyFlags } from './connection.ts';
import { replaceFile, type KeyDirectory } from './key-directory.ts';
import { describeChanges } from './keys-rotate.ts';
import type { Terminal } from './terminal.ts';

/** Adds `inlay keys sign`. */
export function addKeysSign(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('sign')
    .description('add the signatures of the keys at hand to a draft; nothing is installed')
    .argument('<file>', 'draft, as `keys rotate --draft` writes it');
  withKeyFlags(command)
    .option('--json', 'print JSON')
    .action(async (file: string, flags: KeyFlags & { readonly json?: true }) => {
      const directory = openKeys(flags, terminal);
      const platform = nodePlatform();
      const path = await findDraft(file, directory, terminal);
      const draft = parseDraft(await readFile(path), file);
      const { role } = draft;
      const roots = await rootsFor(draft, directory);
      const before = roots.length > 1 ? roots[0] : undefined;
      if (!flags.json && draft.role === 'root') {
        terminal.print(`Root ${draft.envelope.signed.version}`);
        for (const line of describeChanges(before, draft.envelope.signed)) {
          terminal.print(`  ${line}`);
        }
      }
      const parts = { keys: directory, platform };
      const { envelope, added } =
        draft.role === 'root'
          ? await signDraft(parts, draft.envelope, roots, role)
          : await signDraft(parts, draft.envelope, roots, role);
      if (added.length > 0) await replaceFile(path, encodeEnvelope(envelope), platform);
      else if (!(await isSignedHere(envelope, directory))) throw nothingToSignWith(file, role);
      const counts = await Promise.all(roots.map((root) => countSignatures(platform, envelope, root, role)));
      if (flags.json) terminal.print(JSON.stringify({ file: path, added, counts }));
      else for (const line of describeCounts(added, counts)) terminal.print(line);
    });
}

/** Reads a file that is to be signed. @throws `TypeError` if it is neither a root nor targets. */
export function parseDraft(bytes: Uint8Array, file: string): Draft {
  const value = parseStrictJson(bytes);
  const signed = isFields(value) ? value['signed'] : undefined;
  const type = isFields(signed) ? signed['_type'] : undefined;
  if (type === 'root') return { role: type, envelope: parseEnvelope(bytes, type) };
  if (type === 'targets') return { role: type, envelope: parseEnvelope(bytes, type) };
  throw new TypeError(
    `${file} is no draft of a root or of targets; \`inlay keys rotate --draft\` writes one.`,
  );
}

/** Finds a draft here or in the key folder. @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` */
export async function findDraft(file: string, { path }: KeyDirectory, { cwd }: Terminal): Promise<string> {
  for (const candidate of [resolve(cwd, file), join(path, file)]) {
    try {
      await access(candidate);
      return candidate;
    } catch {
      // The next one.
    }
  }
  throw new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `There is no file ${file}, neither here nor in ${path}; check the name.`,
  );
}

/** The roots whose keys may sign: the present one, if it is known here, and the next. */
async function rootsFor({ role, envelope }: Draft, directory: KeyDirectory): Promise<readonly Root[]> {
  const bytes = await directory.read('root.json');
  const present = bytes && parseEnvelope(bytes, 'root').signed;
  if (role === 'targets') {
    if (!present) await directory.root();
    const { root } = await readDrafts(directory);
    return [...(present ? [present] : []), ...(root ? [root.signed] : [])];
  }
  const next = envelope.signed;
  if (present && next.version <= present.version) {
    throw new ServerError(
      'ERR_INLAY_CONFLICT',
      `Root ${next.version} is no next one: the folder ${directory.path} has root ${present.version} already.`,
      { details: { version: next.version, present: present.version } },
    );
  }
  return [...(present?.version === next.version - 1 ? [present] : []), next];
}

async function isSignedHere({ signatures }: Envelope, directory: KeyDirectory): Promise<boolean> {
  const stored = await directory.stored();
  return signatures.some(({ keyid }) => stored.some((source) => source.keyid === keyid));
}

function nothingToSignWith(file: string, role: OfflineRole): ServerError {
  return new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `None of the keys at hand may sign ${file}; name the folder of a ${role} key with --keys.`,
  );
}

function describeCounts(added: readonly string[], counts: readonly SignatureCount[]): readonly string[] {
  const signed = added.map((id) => id.slice(0, 12)).join(', ');
  const lines = counts.map(({ root, valid, threshold, missing, open }) => {
    const lack = missing === 0 ? '' : `; ${missing} more of ${open.map((id) => id.slice(0, 12)).join(', ')}`;
    return `  keys of root ${root}: ${valid.length} signed, ${threshold} needed${lack}`;
  });
  const isComplete = counts.every(({ missing }) => missing === 0);
  return [
    added.length === 0 ? 'Signed before.' : `Signed by ${signed}.`,
    ...lines,
    isComplete
      ? '\nNext, where the draft was made:\n  npx inlay keys install FILE'
      : '\nNext: have it signed by others.',
  ];
}
