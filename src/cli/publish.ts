import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { nodePlatform } from '../platform-node.ts';
import {
  assertFiles,
  publishRelease,
  type PublishedRelease,
  type ReleaseVariant,
} from '../publish/publisher.ts';
import { createDeltaEncoder } from '../publish/delta/encoder.ts';
import type { TargetName } from '../optimize/runtime.ts';
import type { ReleaseWay } from '../publish/release-ways.ts';
import { assertNames } from '../publish/release.ts';
import type { Profile } from '../telemetry/profile.ts';
import type { GoldenTolerance } from '../update/manifest.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import { isDataPath } from './data/open-file.ts';
import { checkRelease, type CheckedRelease } from './publish-check.ts';
import {
  compactModeOf,
  compactReference,
  describeCompact,
  withCompactFlags,
  type CompactFlags,
} from './publish-compact.ts';
import { describeSnap, snapReference } from './publish-snap.ts';
import { gzipBest, readProfile, readReleaseFile, writeProfile } from './publish-files.ts';
import {
  parseLicence,
  parseNotes,
  parseReference,
  parseSdk,
  parseSeconds,
  parseTolerance,
  parseVariant,
  type VariantFlag,
} from './publish-flags.ts';
import { checkOptimized, optimizeVariants } from './publish-optimize.ts';
import { describeProfile, makeProfile, type ReferenceProfile } from './publish-profile.ts';
import { compareWithPresent, readPresentOutputs } from './publish-signature.ts';
import { formatBytes, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags, KeyFlags, CompactFlags {
  readonly name: string;
  readonly version: string;
  readonly variant: readonly VariantFlag[];
  readonly optimize?: 'auto';
  readonly optimizeFor: readonly TargetName[];
  readonly golden: string;
  readonly tolerance?: GoldenTolerance;
  readonly timeout: number;
  /** False with `--no-check`. */
  readonly check: boolean;
  readonly newSignature?: true;
  readonly profile?: string;
  readonly reference?: string;
  readonly labels?: string;
  readonly profileOut?: string;
  readonly ownBins?: true;
  readonly minSdk?: string;
  readonly licence?: string;
  readonly notes?: string;
  readonly patchFrom?: readonly string[];
  readonly json?: true;
}

/** Adds `inlay publish`. */
export function addPublish(program: Command, terminal: Terminal): void {
  const command = program
    .command('publish')
    .description(
      'try a model out, sign it as a release and put it on the server; no device runs it before a rollout',
    )
    .argument('<file>', 'ONNX model')
    .requiredOption('--name <name>', 'name of the model')
    .requiredOption('--version <version>', 'version that people see, such as 1.1.0')
    .addOption(
      new Option('--variant <name=file>', 'the same model in another precision; may be repeated')
        .argParser(parseVariant)
        .default([], 'none'),
    )
    .addOption(
      new Option(
        '--optimize <how>',
        'auto: add the variants that are faster on the targets, measured here with the data of --reference or --golden',
      ).choices(['auto']),
    )
    .addOption(
      new Option('--optimize-for <target...>', 'targets of --optimize')
        .choices(['node-cpu', 'wasm', 'webgpu'])
        .default(['node-cpu', 'wasm']),
    )
    .option(
      '--golden <file>',
      'inputs that devices try a release with: .npz, .npy, .jsonl, .csv, .json, auto or none',
      'auto',
    )
    .option(
      '--tolerance <absolute,relative>',
      'how far answers may lie from the expected ones, such as 0.0001,0.001 (default: by precision)',
      parseTolerance,
    )
    .option('--timeout <seconds>', 'longest time that loading, or one run, may take', parseSeconds, 60)
    .option('--no-check', 'publish what nobody has tried out, without golden outputs')
    .option(
      '--new-signature',
      'publish other inputs or outputs than before, which running devices refuse; another name or channel is better',
    )
    .addOption(
      new Option('--profile <file>', 'reference profile: what the model sees and gives, for drift').conflicts(
        'reference',
      ),
    )
    .option(
      '--reference <file>',
      'examples that the reference profile is made of: .npz, .npy, .jsonl, .csv',
      parseReference,
    )
    .option('--labels <column|file>', 'their right classes, for accuracy and calibration')
    .option('--profile-out <file>', 'where to write the profile that is made')
    .option('--own-bins', 'count answers in new bins, which cannot be compared with those of other versions')
    .option('--min-sdk <version>', 'lowest version of Inlay that runs it', parseSdk)
    .option('--licence <spdx>', 'SPDX expression, such as Apache-2.0', parseLicence)
    .option('--notes <text>', 'what is new; signed with the release', parseNotes)
    .option(
      '--patch-from <version...>',
      'releases that devices can patch, or auto for the last three and the first',
    );
  withServerFlags(withKeyFlags(withCompactFlags(command)))
    .option('--json', 'print JSON')
    .addHelpText('after', help)
    .action(async (file: string, flags: Flags) => {
      const { name, version, variant, check, json } = flags;
      assertNames(name, version);
      assertReference(flags);
      const path = (given: string): string => resolve(terminal.cwd, given);
      const mode = compactModeOf(flags);
      const trained = await readReleaseFile(path(file), undefined, check);
      const variants: ReleaseVariant[] = [];
      for (const other of variant)
        variants.push(await readReleaseFile(path(other.file), other.variant, check));
      const source = {
        server: connect(flags, terminal),
        keys: openKeys(flags, terminal),
        platform: nodePlatform(),
      };
      const tell = (text: string): void => {
        terminal.printError(text);
      };
      const rounding = {
        ...source,
        file: trained,
        flags,
        data: flags.compactData === undefined ? optimizationData(flags, path) : path(flags.compactData),
        cwd: terminal.cwd,
        env: terminal.env,
      };
      const compact = mode && (await compactReference({ ...rounding, mode, model: name, version, tell }));
      const snap =
        flags.snap === undefined ? undefined : await snapReference({ ...rounding, bits: flags.snap });
      if (compact !== undefined && !json) terminal.print(`${describeCompact(compact.facts)}\n`);
      if (snap !== undefined && !json) terminal.print(`${describeSnap(snap.facts)}\n`);
      const reference = (compact ?? snap)?.file ?? trained;
      const optimized =
        flags.optimize === undefined
          ? undefined
          : await optimizeVariants({
              file: reference,
              taken: variants.map((one) => one.variant),
              targets: flags.optimizeFor,
              data: optimizationData(flags, path),
              tell,
            });
      variants.push(...(optimized?.variants ?? []));
      assertFiles([reference, ...variants]);
      const { profile, minSdk, licence, notes, patchFrom } = flags;
      const profileBytes = profile === undefined ? undefined : await readProfile(path(profile));
      const checked: CheckedRelease & { readonly dropped?: readonly string[] } = check
        ? await checkOptimized(checkRelease, optimized?.variants ?? [], {
            files: [reference, ...variants],
            golden: ['auto', 'none'].includes(flags.golden) ? flags.golden : path(flags.golden),
            tolerance: flags.tolerance,
            timeoutMs: 1000 * flags.timeout,
          })
        : { golden: undefined, differences: {}, tolerances: {}, notices: ['Nobody has tried it out.'] };
      const kept = variants.filter(({ variant: one }) => checked.dropped?.includes(one) !== true);
      const parts = {
        ...source,
        gzip: gzipBest,
        encoders: [
          createDeltaEncoder({ platform: source.platform, ...(compact && { steps: compact.steps }) }),
        ],
      };
      const takesBins = flags.reference !== undefined && flags.ownBins !== true;
      const present = takesBins ? await readPresentOutputs({ ...parts, model: name }) : undefined;
      const made = await makeReference(reference, flags, path, present?.outputs);
      if (made !== undefined && !json) terminal.print(`${describeProfile(made)}\n`);
      const notices = [
        ...((compact ?? snap)?.notices ?? []),
        ...(optimized?.notices ?? []),
        ...checked.notices,
      ];
      if (present !== undefined && present.version !== version)
        notices.push(`Its answers are counted in the bins of ${present.version}; --own-bins makes new ones.`);
      const { signature } = checked;
      const { isOther, notices: compared } =
        signature === undefined
          ? { isOther: false, notices: [] }
          : await compareWithPresent({
              ...parts,
              model: name,
              version,
              signature,
              isNew: flags.newSignature === true,
              timeoutMs: 1000 * flags.timeout,
            });
      notices.push(...compared);
      const published = await publishRelease(parts, reference.bytes, {
        model: name,
        version,
        file: reference.file,
        variant: reference.variant,
        tolerance: checked.tolerances[reference.variant],
        variants: kept.map((one) => ({ ...one, tolerance: checked.tolerances[one.variant] })),
        golden: checked.golden,
        profile: made?.bytes ?? profileBytes,
        minSdk,
        licence,
        notes,
        compact: compact?.record,
        snap: snap?.record,
        // Who asks for a rounded update is served with a patch also where nothing was rounded.
        patchFrom: isAuto(patchFrom)
          ? 'auto'
          : (patchFrom ?? (compact && compact.record === undefined ? [compact.anchor] : undefined)),
      });
      const { differences } = checked;
      const facts = {
        model: name,
        version,
        ...published,
        differences,
        ...(optimized && { optimized: optimized.facts }),
        ...(compact && { compact: compact.facts }),
        ...(snap && { snap: snap.facts }),
        notices,
      };
      if (json) terminal.print(JSON.stringify({ ...facts, ...(made && { profile: factsOf(made) }) }));
      else {
        terminal.print(describe(flags, published, { ...checked, notices }, kept));
        terminal.print(`\nNext:\n  ${nextCommand(flags, published, isOther)}`);
      }
    });
}

/** @throws `RangeError` for what says something about examples that are not given. */
function assertReference({ reference, labels, profileOut, ownBins }: Flags): void {
  const given = Object.entries({ '--labels': labels, '--profile-out': profileOut, '--own-bins': ownBins });
  const alone = given.find(([, value]) => reference === undefined && value !== undefined);
  if (alone) throw new RangeError(`${alone[0]} belongs to examples; give them with --reference FILE.`);
}

/** Makes the reference profile, where examples are given, and writes it where it is asked for. */
async function makeReference(
  file: ReleaseVariant,
  { reference, labels, profileOut, timeout }: Flags,
  path: (given: string) => string,
  outputBins: Profile['outputs'] | undefined,
): Promise<ReferenceProfile | undefined> {
  if (reference === undefined) return undefined;
  const made = await makeProfile({
    file,
    data: path(reference),
    labels: labels !== undefined && isDataPath(labels) ? path(labels) : labels,
    timeoutMs: 1000 * timeout,
    outputBins,
  });
  if (profileOut !== undefined) await writeProfile(path(profileOut), made.bytes);
  return made;
}

/** Examples that candidates are tried with, as far as they are rows. */
function optimizationData({ reference, golden }: Flags, path: (given: string) => string): string | undefined {
  const given = [reference, golden].find((one) => one !== undefined && isDataPath(one));
  return given === undefined ? undefined : path(given);
}

function factsOf({ profile, rows, labelled }: ReferenceProfile): object {
  const { inputs, outputs, accuracy } = profile;
  const features = { inputs: Object.keys(inputs), outputs: Object.keys(outputs) };
  return { rows, labelled, ...features, ...(accuracy !== undefined && { accuracy }) };
}

function nextCommand(
  { name, version }: Flags,
  { isUnchanged, seq }: PublishedRelease,
  isOther: boolean,
): string {
  if (isUnchanged) return 'npx inlay status';
  const set = `npx inlay rollout set ${name} ${version}`;
  // Devices that run another release refuse it.
  if (isOther) return `${set} --channel CHANNEL --percent 100`;
  // There is nothing that devices could run instead.
  return `${set} --percent ${seq === 1 ? 100 : 10}`;
}

function describe(
  { name, version, check }: Flags,
  { path, sizeBytes, sha256, isUnchanged, ways }: PublishedRelease,
  { golden, differences, notices }: CheckedRelease,
  variants: readonly ReleaseVariant[],
): string {
  const size = (bytes: number): string => `${formatBytes(bytes)} (${bytes} bytes)`;
  const lines = [
    isUnchanged
      ? `${name} ${version} was published before; nothing is changed`
      : `Published ${name} ${version}`,
    `  path    ${path}`,
    `  size    ${size(sizeBytes)}`,
    `  sha256  ${sha256}`,
    ...variants.map(({ variant, bytes }) => {
      const difference = differences[variant];
      const off = difference === undefined ? '' : `, off by ${Number((100 * difference).toPrecision(2))} %`;
      return `  ${variant.padEnd(6)}  ${size(bytes.length)}${off}`;
    }),
    ...ways.map(describeWay),
    ...(check ? [`  golden  ${golden === undefined ? 'none' : size(golden.bytes.length)}`] : []),
    ...notices.map((notice) => `  note    ${notice}`),
  ];
  return lines.join('\n');
}

/** Says what a way is, in a line. */
function describeWay({ variant, kind, codec, sizeBytes, from, to }: ReleaseWay): string {
  const size = `${formatBytes(sizeBytes)} (${sizeBytes} bytes)`;
  const places = [...(from ? [`from ${from.join(' or ')}`] : []), ...(to ? [`to ${to.join(' or ')}`] : [])];
  const what = kind === 'hop' ? 'earlier patch' : kind;
  return [`  ${codec.padEnd(6)}  ${size}, ${what} ${variant}`, ...places].join(' ');
}

function isAuto(patchFrom: readonly string[] | undefined): boolean {
  return patchFrom?.length === 1 && patchFrom[0] === 'auto';
}

const help = `
The model is opened and run in a child process with onnxruntime-node before anything is
signed: what does not load or run is not published, nor is a variant that answers
otherwise, nor a model that cannot stand in for the newest release of its name. Its answers
go into the release, so that devices can tell whether it works there.

With --optimize auto, variants that are faster on a target are made and measured here, and published
with what a device must have for them. Give examples with --reference: half of them calibrate, the
others judge. A device takes such a variant only if it answers as it should there.

With --near or --small, the weights are rounded around those of a release that devices have, so that
the update is a patch of a few per cent; --small takes larger steps, at random so that the update stays
whole on average. The largest step is taken that passes: by your own --compact-metric, or by the answers
to --compact-data. What was tried is shown before anything is signed, and what was judged is what is
published. Without a step that passes, the weights are published as they are.

With --snap, weights are rounded onto a grid of their own, which takes no earlier release: what devices
without any download becomes small, with gzip as well. It is judged in the same way, by --compact-metric
or --compact-data.

Golden inputs are made up unless they are given:
  .npz .npy .jsonl .csv  one per row, as for \`inlay run\`
  .json                  [{ "inputs": { "x": [[1, 2]] }, "outputs": { "y": [[3]] } }, …];
                         outputs that are given have to come

A reference profile says how inputs and answers are distributed when all is well: devices count
theirs into the same bins, and the server compares. With --reference it is made of at least
some hundred examples, one per row as for \`inlay run\`; it is shown before anything is signed, and
holds counts and class names, no example. Answers are counted in the bins of the newest release,
so that guards can compare the two; --own-bins makes new ones.

Examples:
  $ npx inlay publish digits.onnx --name digits --version 1.1.0
  $ npx inlay publish digits.onnx --name digits --version 1.1.0 --reference train.csv --labels label
  $ npx inlay publish digits.onnx --name digits --version 1.2.0 --variant int8=digits-int8.onnx --golden samples.npz
  $ npx inlay publish tuned.onnx --name digits --version 1.3.0 --near --compact-data validation.npz
  $ npx inlay publish tuned.onnx --name digits --version 1.3.0 --small --compact-metric 'python evaluate.py'`;
