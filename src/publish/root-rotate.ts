/**
 * The way from one root to the next. What is about to be installed is written down first, as drafts, so that signatures
 * can come from several places, and so that whatever interrupts an installation, doing it again completes it.
 */

import { equalBytes } from '../core/bytes.ts';
import { isInlayError, ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import type { Envelope, Root, Targets } from '../trust/metadata.ts';
import { parseEnvelope } from '../trust/parse.ts';
import { readCurrent, type Current } from './current.ts';
import { offlineDays, type ReleaseServer } from './publisher.ts';
import { expiresIn } from './release.ts';
import { countSignatures, withoutWrong, type Draft, type SignatureCount } from './root-draft.ts';
import { keysOf, nextRoot, nextTargets, onlineKeyOf, type OfflineRole, type RootChange } from './root.ts';
import { addSignatures, encodeEnvelope, mergeSignatures } from './sign.ts';
import type { Signer } from './signer.ts';

/** Name of metadata that waits for signatures. */
export type DraftFile = `${OfflineRole}.${number}.draft.json`;

/** Public metadata that lies beside the keys. Of roots before `root.json`, each keeps its version in its name. */
export type KeyFolderFile =
  | 'root.json'
  | 'targets.json'
  | 'verified.json'
  | `root.${number}.json`
  | DraftFile;

/** Where the keys and the public metadata lie. */
export interface RotationKeys {
  readonly path: string;
  /** The newest root that is known here. */
  root(): Promise<Uint8Array>;
  read(file: KeyFolderFile): Promise<Uint8Array | undefined>;
  write(file: KeyFolderFile, bytes: Uint8Array): Promise<void>;
  drafts(): Promise<readonly DraftFile[]>;
  /** Opens those of some keys that are at hand. */
  signers(keyids: readonly string[]): Promise<readonly Signer[]>;
  remove(draft: DraftFile): Promise<void>;
  /** Keeps a file, or the files of a key, where nothing takes them up again. */
  retire(what: DraftFile | { readonly keyid: string }): Promise<void>;
}

/** Installs what is ready. */
export interface RotationServer extends Pick<ReleaseServer, 'tip' | 'text' | 'putTargets'> {
  putRoot(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** What a rotation works with. */
export interface RotationParts {
  readonly server: RotationServer;
  readonly keys: RotationKeys;
  readonly platform: Platform;
  /** Reads also what the key of a lost server signed; see {@link readCurrent}. Default false. */
  readonly withoutOnlineKey?: boolean;
}

/** What {@link installDrafts} did. */
export interface Installed {
  /** Versions in force. */
  readonly root: number;
  readonly targets: number;
  /** What is new, in the order in which it was installed. */
  readonly installed: readonly OfflineRole[];
}

const maxAttempts = 10;

/**
 * Writes down the next root, unsigned, and the next targets if its change asks for new ones.
 * @param change.renewTargets writes down the next targets in any case.
 * @param current what the server has; without it, the targets are left to {@link installDrafts}.
 * @returns the draft.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if there is a draft already, `ERR_INLAY_REFUSED` if the change cannot be.
 */
export async function proposeRoot(
  { keys, platform }: Pick<RotationParts, 'keys' | 'platform'>,
  change: Omit<RootChange, 'expires'> & { readonly renewTargets?: boolean },
  current: Pick<Current, 'targets'> | undefined,
): Promise<{ readonly file: DraftFile; readonly present: Root; readonly root: Root }> {
  const present = parseEnvelope(await keys.root(), 'root').signed;
  await assertNoDraft(keys);
  const { renewTargets = false, ...rest } = change;
  const root = nextRoot(present, { ...rest, expires: expiresIn(platform.now(), offlineDays.root) });
  // First the root: targets that it needs can be told from it, but not the other way round.
  const file: DraftFile = `root.${root.version}.draft.json`;
  await keys.write(file, encodeEnvelope({ signatures: [], signed: root }));
  if (current) await proposeTargets({ keys, platform }, root, current, renewTargets);
  return { file, present, root };
}

/** Checks that nothing waits. @throws {@link ServerError} `ERR_INLAY_CONFLICT` */
export async function assertNoDraft(keys: RotationKeys): Promise<void> {
  const [waiting] = await keys.drafts();
  if (waiting === undefined) return;
  throw new ServerError(
    'ERR_INLAY_CONFLICT',
    `${waiting} in ${keys.path} waits to be installed; run \`inlay keys install\`, or delete it first.`,
  );
}

/** Writes down the next targets, unsigned, if the root needs or the caller wants new ones. */
export async function proposeTargets(
  { keys, platform }: Pick<RotationParts, 'keys' | 'platform'>,
  root: Root,
  { targets }: Pick<Current, 'targets'>,
  always: boolean,
): Promise<void> {
  const fits = delegates(targets.signed, root) && (await isSignedFor(platform, targets, root));
  if (!always && fits) return;
  const draft = successor(targets.signed, root, expiresIn(platform.now(), offlineDays.targets));
  await keys.write(`targets.${draft.version}.draft.json`, encodeEnvelope({ signatures: [], signed: draft }));
}

/**
 * Adds the signatures of the keys at hand to the drafts, and installs what has enough of them: in an order in which
 * devices find targets that their root accepts at every moment, as far as there is one.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if signatures are missing (nothing is installed then),
 * `ERR_INLAY_CONFLICT` if somebody else installed a root meanwhile (the draft is retired then).
 */
export async function installDrafts(parts: RotationParts): Promise<Installed> {
  const installed: OfflineRole[] = [];
  for (let attempt = 1; ; attempt += 1) {
    const current = await readAndKeep(parts);
    const ready = await prepare(parts, current);
    try {
      for (const role of ready.order) {
        await install(parts, role, ready);
        installed.push(role);
      }
      return {
        root: ready.root?.signed.version ?? current.root.version,
        targets: (ready.targets ?? current.targets).signed.version,
        installed,
      };
    } catch (error) {
      const raced = isInlayError(error) && error.code === 'ERR_INLAY_CONFLICT';
      if (!raced || attempt === maxAttempts) throw error;
    }
  }
}

/**
 * Reads what is in force, keeps new roots beside the keys, and clears away what they settle: drafts that are
 * installed, and keys that no role has any more.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if a draft lost against another root; it is retired then.
 */
export async function readAndKeep(parts: RotationParts): Promise<Current> {
  const { keys } = parts;
  const current = await readCurrent(parts);
  for (const bytes of current.roots) await keepRoot(keys, bytes);
  await retireKeys(keys, current.root);
  let lost: DraftFile | undefined;
  for (const file of await keys.drafts()) {
    const [role, version] = partsOf(file);
    if (version > (role === 'root' ? current.root : current.targets.signed).version) continue;
    const draft = parseEnvelope((await keys.read(file)) ?? new Uint8Array(), role);
    const winner =
      role === 'targets'
        ? current.targets
        : parseEnvelope((await keys.read(rootFile(version, current.root))) ?? new Uint8Array(), 'root');
    if (equalBytes(canonicalJson(draft.signed), canonicalJson(winner.signed))) await keys.remove(file);
    else if (role === 'root') {
      await keys.retire(file);
      lost = file;
    }
  }
  if (lost === undefined) return current;
  throw new ServerError(
    'ERR_INLAY_CONFLICT',
    `Somebody else installed root ${current.root.version} meanwhile, so ${lost} went to retired/; ` +
      'see `inlay keys status`, and rotate again if that is still needed.',
    { details: { root: current.root.version } },
  );
}

/**
 * Reads the drafts that wait.
 * @throws `TrustError` `ERR_INLAY_METADATA_INVALID` if one is damaged.
 */
export async function readDrafts(
  keys: RotationKeys,
): Promise<{ readonly root?: Envelope<Root>; readonly targets?: Envelope<Targets> }> {
  let root: Envelope<Root> | undefined;
  let targets: Envelope<Targets> | undefined;
  for (const file of await keys.drafts()) {
    const bytes = (await keys.read(file)) ?? new Uint8Array();
    if (partsOf(file)[0] === 'root') root = parseEnvelope(bytes, 'root');
    else targets = parseEnvelope(bytes, 'targets');
  }
  return { ...(root && { root }), ...(targets && { targets }) };
}

/** Adds signatures of another copy of a draft to the one in the folder; if there is none, the copy is put there. */
export async function mergeDraft(
  { keys, platform }: Pick<RotationParts, 'keys' | 'platform'>,
  { role, envelope }: Draft,
): Promise<void> {
  const file: DraftFile = `${role}.${envelope.signed.version}.draft.json`;
  const next = role === 'root' ? envelope.signed : (await readDrafts(keys)).root?.signed;
  const roots = [parseEnvelope(await keys.root(), 'root').signed, ...(next ? [next] : [])];
  const valid = await withoutWrong<Root | Targets>(
    platform,
    envelope,
    roots.flatMap((root) => keysOf(root, role)),
  );
  const bytes = await keys.read(file);
  const present = bytes && parseEnvelope<OfflineRole>(bytes, role);
  await keys.write(file, encodeEnvelope(present ? mergeSignatures(present, valid) : valid));
}

/** Adds the signatures of keys at hand that may sign and have not. @returns the metadata and who signed. */
export async function signDraft<Body extends Root | Targets>(
  { keys, platform }: Pick<RotationParts, 'keys' | 'platform'>,
  draft: Envelope<Body>,
  roots: readonly Root[],
  role: OfflineRole,
): Promise<{ readonly envelope: Envelope<Body>; readonly added: readonly string[] }> {
  const known = roots.flatMap((root) => keysOf(root, role));
  const envelope = await withoutWrong(platform, draft, known);
  const done = new Set(envelope.signatures.map(({ keyid }) => keyid));
  const open = [...new Set(known.map(({ keyid }) => keyid))].filter((keyid) => !done.has(keyid));
  const signers = open.length === 0 ? [] : await keys.signers(open);
  return {
    envelope: await addSignatures(envelope, signers),
    added: signers.map(({ keyid }) => keyid),
  };
}

/** What is signed and may go to the server, and in which order. */
interface Ready {
  readonly root?: Envelope<Root>;
  readonly targets?: Envelope<Targets>;
  readonly order: readonly OfflineRole[];
}

async function prepare(parts: RotationParts, current: Current): Promise<Ready> {
  const { keys, platform } = parts;
  const drafts = await readDrafts(keys);
  const present = current.root;
  const root =
    drafts.root && (await signDraft(parts, drafts.root, [present, drafts.root.signed], 'root')).envelope;
  const next = root?.signed ?? present;
  if (root) await keys.write(`root.${next.version}.draft.json`, encodeEnvelope(root));

  const targets = await signTargets(parts, current, next, drafts.targets);
  const lacking = root
    ? [
        await countSignatures(platform, root, present, 'root'),
        await countSignatures(platform, root, next, 'root'),
      ]
    : [];
  assertEnough(keys, `root.${next.version}.draft.json`, lacking);
  if (!targets) return { ...(root && { root }), order: root ? ['root'] : [] };
  const file: DraftFile = `targets.${targets.signed.version}.draft.json`;
  assertEnough(keys, file, [await countSignatures(platform, targets, next, 'targets')]);
  if (!root) return { targets, order: ['targets'] };

  // Targets that both roots accept go first, so that a device never finds targets that its root does not accept.
  const isBridge =
    (await isSignedFor(platform, targets, present)) &&
    delegates(targets.signed, present) &&
    Date.parse(present.expires) > platform.now();
  return { root, targets, order: isBridge ? ['targets', 'root'] : ['root', 'targets'] };
}

/** Brings the draft of the targets up to date and signs it with the keys at hand; `undefined` if none is needed. */
async function signTargets(
  parts: RotationParts,
  current: Current,
  next: Root,
  draft: Envelope<Targets> | undefined,
): Promise<Envelope<Targets> | undefined> {
  const { keys, platform } = parts;
  const present = current.targets;
  const fits = delegates(present.signed, next) && (await isSignedFor(platform, present, next));
  if (!draft && fits) return undefined;
  const body = successor(
    present.signed,
    next,
    draft?.signed.expires ?? expiresIn(platform.now(), offlineDays.targets),
  );
  const isSame = draft !== undefined && equalBytes(canonicalJson(draft.signed), canonicalJson(body));
  const unsigned = isSame ? draft : { signatures: [], signed: body };
  const { envelope } = await signDraft(parts, unsigned, [current.root, next], 'targets');
  const file: DraftFile = `targets.${body.version}.draft.json`;
  await keys.write(file, encodeEnvelope(envelope));
  for (const other of await keys.drafts()) {
    if (other !== file && partsOf(other)[0] === 'targets') await keys.remove(other);
  }
  return envelope;
}

async function install({ server, keys }: RotationParts, role: OfflineRole, ready: Ready): Promise<void> {
  const envelope = ready[role];
  if (!envelope) return;
  const bytes = encodeEnvelope(envelope);
  const draft: DraftFile = `${role}.${envelope.signed.version}.draft.json`;
  if (role === 'root') {
    await server.putRoot(bytes);
    await keepRoot(keys, bytes);
    await retireKeys(keys, envelope.signed as Root);
  } else {
    await server.putTargets(bytes);
    await keys.write('targets.json', bytes);
  }
  await keys.remove(draft);
}

function assertEnough(keys: RotationKeys, file: DraftFile, counts: readonly SignatureCount[]): void {
  const short = counts.filter(({ missing }) => missing > 0);
  if (short.length === 0) return;
  const needs = [
    ...new Set(
      short.map(
        ({ root, missing, open }) =>
          `${missing} of the keys of root ${root} (${open.map((id) => id.slice(0, 12)).join(', ')})`,
      ),
    ),
  ];
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `${file} in ${keys.path} lacks signatures: ${needs.join(', and ')}; ` +
      `have it signed with \`inlay keys sign ${keys.path}/${file}\`, then run \`inlay keys install\`.`,
    { details: { file, missing: short.map(({ root, missing, open }) => ({ root, missing, open })) } },
  );
}

/** Replaces `root.json` by the root after it. */
async function keepRoot(keys: RotationKeys, bytes: Uint8Array): Promise<void> {
  const before = await keys.root();
  const { version } = parseEnvelope(before, 'root').signed;
  if (parseEnvelope(bytes, 'root').signed.version !== version + 1) return;
  await keys.write(`root.${version}.json`, before);
  await keys.write('root.json', bytes);
}

/** Retires keys that an earlier root named and the present one does not. */
async function retireKeys(keys: RotationKeys, present: Root): Promise<void> {
  const listed = new Set(offline(present));
  const gone = new Set<string>();
  for (let version = present.version - 1; version > 0; version -= 1) {
    const bytes = await keys.read(`root.${version}.json`);
    if (!bytes) break;
    for (const keyid of offline(parseEnvelope(bytes, 'root').signed)) if (!listed.has(keyid)) gone.add(keyid);
  }
  for (const keyid of gone) await keys.retire({ keyid });
}

function offline({ roles }: Root): readonly string[] {
  return [...roles.root.keyids, ...roles.targets.keyids];
}

/** The targets that follow, with the delegation that a root asks for. */
function successor(present: Targets, root: Root, expires: string): Targets {
  return nextTargets(present, {
    expires,
    onlineKey: delegates(present, root) ? undefined : onlineKeyOf(root),
  });
}

/** Whether the server that signs for this root may sign rollouts, too. */
function delegates({ delegations }: Targets, { keys, roles }: Root): boolean {
  const role = delegations?.roles.find(({ name }) => name === 'rollout');
  return (
    role?.keyids.some(
      (keyid) =>
        roles.timestamp.keyids.includes(keyid) &&
        delegations?.keys[keyid]?.keyval.public === keys[keyid]?.keyval.public,
    ) ?? false
  );
}

async function isSignedFor(platform: Platform, targets: Envelope<Targets>, root: Root): Promise<boolean> {
  return (await countSignatures(platform, targets, root, 'targets')).missing === 0;
}

function rootFile(version: number, newest: Root): KeyFolderFile {
  return version === newest.version ? 'root.json' : `root.${version}.json`;
}

function partsOf(file: DraftFile): readonly [OfflineRole, number] {
  const [role, version] = file.split('.');
  return [role as OfflineRole, Number(version)];
}
