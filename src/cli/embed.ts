import { mkdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { toUtf8 } from '../core/bytes.ts';
import { ServerError, TrustError } from '../core/errors.ts';
import type { EmbeddedFacts } from '../engine/reference.ts';
import { nodePlatform } from '../platform-node.ts';
import { isWithdrawn, listReleases, type ListedRelease } from '../publish/release.ts';
import { fetchManifest, fetchTarget, requireRelease } from '../publish/released-files.ts';
import { readVerified, type VerifiedCopy } from '../publish/verified-copy.ts';
import type { FileRef, ReleaseManifest } from '../update/manifest.ts';
import type { PlanEntry } from '../update/plan.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { replaceFile } from './export-files.ts';
import { formatBytes, type Terminal } from './terminal.ts';
import { readRoot, withRootFlags, type RootFlags } from './trusted-root.ts';

interface Flags extends ServerFlags, RootFlags {
  readonly version?: string;
  readonly variant?: string;
  readonly channel: string;
  readonly out: string;
  readonly json?: true;
}

/** What `<name>.inlay.json` holds: what an app needs to know of the file that it brings along. */
export interface EmbeddedDescription extends EmbeddedFacts {
  /** The model's file, beside this one. */
  readonly file: EmbeddedFacts['file'] & { readonly name: string };
  readonly manifest?: ReleaseManifest;
  /** The root to trust, as it was signed: the option `sync.root`. */
  readonly root: unknown;
}

/** Adds `inlay embed`. */
export function addEmbed(program: Command, terminal: Terminal): void {
  const command = program
    .command('embed')
    .description('put a release into the bundle of an app, to start with and to patch from')
    .argument('<name>', 'name of the model')
    .option('--version <version>', 'published version (default: what all devices of the channel run)')
    .option('--variant <name>', 'precision (default: the first)')
    .option('--channel <name>', 'channel that the default version comes from', 'stable')
    .option('--out <dir>', 'folder to write to', '.');
  withServerFlags(withRootFlags(command))
    .option('--json', 'print JSON')
    .action(async (name: string, flags: Flags) => {
      const parts = { server: connect(flags, terminal), platform: nodePlatform() };
      const copy = await readVerified({ ...parts, root: await readRoot(flags, terminal) });
      const release = chooseRelease(copy, name, flags);
      const { model: _, ...entry } = release;
      const manifest = await fetchManifest(parts, copy.targets, release);
      const { ref, variant } = chooseFile(release, manifest, flags.variant);
      const bytes = await fetchTarget(parts, ref);
      const directory = resolve(terminal.cwd, flags.out);
      const { sha256, length } = ref;
      const embedded: EmbeddedDescription = {
        release: entry,
        file: { name: basename(ref.path), sha256, length },
        ...(variant !== undefined && { variant }),
        ...(manifest && { manifest }),
        root: JSON.parse(copy.roots.at(-1) ?? '') as unknown,
      };
      await mkdir(directory, { recursive: true });
      await replaceFile(join(directory, embedded.file.name), bytes, parts.platform);
      const description = join(directory, `${name}.inlay.json`);
      await replaceFile(description, toUtf8(`${JSON.stringify(embedded, null, 2)}\n`), parts.platform);
      if (flags.json) terminal.print(JSON.stringify({ directory, model: name, ...embedded }));
      else terminal.print(describe(name, embedded, directory, bytes.length));
    });
}

function describe(
  name: string,
  { release, file, variant }: EmbeddedDescription,
  directory: string,
  size: number,
): string {
  return [
    `Embedded ${name} ${release.version}${variant === undefined ? '' : ` (${variant})`} in ${directory}`,
    `  ${file.name}  ${formatBytes(size)}`,
    `  ${name}.inlay.json`,
    '\nIn the app:',
    `  import ${toIdentifier(name)} from './${name}.inlay.json' with { type: 'json' };`,
    `  const file = new URL('./${file.name}', import.meta.url);`,
    `  const model = await inlay.load({ name: '${name}', embedded: { file, release: ${toIdentifier(name)} } });`,
  ].join('\n');
}

/** A release that is given, or what every device of the channel runs, or else the newest one. */
function chooseRelease(
  { targets, rollout }: VerifiedCopy,
  model: string,
  { version, channel }: Flags,
): ListedRelease {
  const usable = listReleases(targets)
    .filter((release) => release.model === model && !isWithdrawn(targets, model, release.seq))
    .sort((a, b) => b.seq - a.seq);
  if (version === undefined) {
    const settled = settledRelease(rollout.targets[`rollout/${channel}.json`]?.custom?.['plans'], model);
    const release = usable.find(({ path }) => path === settled) ?? usable[0];
    if (release) return release;
    throw new ServerError(
      'ERR_INLAY_NOT_FOUND',
      `Model ${model} has no release that may run; publish one with \`inlay publish\`.`,
      { details: { model } },
    );
  }
  const release = requireRelease(targets, model, version);
  if (usable.some(({ path }) => path === release.path)) return release;
  throw new TrustError(
    'ERR_INLAY_WITHDRAWN',
    `Version ${version} of model ${model} is withdrawn; embed ${usable[0]?.version ?? 'a version that you publish anew'}.`,
    { details: { model, version } },
  );
}

/** Target path of the release that devices outside a rollout run; the plans are signed by the server. */
function settledRelease(plans: unknown, model: string): string | undefined {
  type Named = {
    readonly model: string;
    readonly state: string;
    readonly cand: PlanEntry;
    readonly base: PlanEntry | null;
  };
  const plan = (Array.isArray(plans) ? (plans as readonly Named[]) : []).find((one) => one.model === model);
  return plan?.state === 'complete' ? plan.cand.path : plan?.base?.path;
}

function chooseFile(
  release: ListedRelease,
  manifest: ReleaseManifest | undefined,
  variant: string | undefined,
): { readonly ref: FileRef; readonly variant: string | undefined } {
  if (variant === undefined) return { ref: release, variant: manifest?.files[0].variant };
  const file = manifest?.files.find((candidate) => candidate.variant === variant);
  if (file) return { ref: file, variant };
  const has = manifest?.files.map((candidate) => candidate.variant).join(', ') ?? 'none';
  throw new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `Version ${release.version} of model ${release.model} has no variant ${variant}; it has ${has}.`,
    { details: { model: release.model, variant } },
  );
}

/** A name for a variable of the app. */
function toIdentifier(name: string): string {
  const camel = name.replace(
    /[^a-z0-9]+(.)?/g,
    (_, letter: string | undefined) => letter?.toUpperCase() ?? '',
  );
  return /^[a-z]/.test(camel) ? camel : `model${camel}`;
}
