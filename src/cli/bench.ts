import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { basename, resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { type OrtSession, type OrtTensor } from '../backends/onnxruntime.ts';
import type { TensorMap } from '../core/backend.ts';
import { InputError } from '../core/errors.ts';
import { formatSpec, type Signature, type TensorSpec } from '../core/signature.ts';
import { createLoader } from '../core/library.ts';
import { randomFeeds } from '../engine/example-feeds.ts';
import type { InlayInfo } from '../engine/inlay.ts';
import { nodePlatform } from '../platform-node.ts';
import { createMemoryStore } from '../stores/memory.ts';
import { measure, ratioOf, type Contestant, type Figures } from './bench-measure.ts';
import { toDims } from './dims.ts';
import type { Terminal } from './terminal.ts';

interface BenchFlags {
  readonly against?: 'raw';
  readonly concurrency: readonly number[];
  readonly seconds: number;
  readonly dim: Readonly<Record<string, number>>;
  readonly json?: true;
}

/** What `inlay bench --json` prints. */
export interface BenchReport {
  /** File name of the model. */
  readonly model: string;
  /** Feeds of each call, random but the same in every bench. */
  readonly feeds: readonly TensorSpec[];
  readonly secondsEach: number;
  readonly machine: string;
  readonly versions: Readonly<Record<string, string>>;
  /** How Inlay served the model, as `inlay.info()` said at the end. */
  readonly served: InlayInfo['models'][number];
  /** `ratio`: calls per second in comparison with the fastest raw setting under the same load. */
  readonly figures: readonly (Figures & { readonly ratio?: number })[];
}

/** Adds `inlay bench`. */
export function addBench(program: Command, terminal: Terminal): void {
  program
    .command('bench')
    .description('measure how fast a model answers calls on this machine')
    .argument('<model>', 'ONNX model')
    .addOption(
      new Option('--against <what>', 'measure onnxruntime-node without Inlay in turns with it').choices([
        'raw',
      ]),
    )
    .option('--concurrency <list>', 'callers at once, separated by commas', toCounts, [1, 8, 64])
    .option('--seconds <seconds>', 'time for each measurement', toSeconds, 2)
    .option('--dim <name=size>', 'size of a symbolic axis; may be repeated (default: 1)', toDims, {})
    .option('--json', 'print JSON')
    .action(async (model: string, flags: BenchFlags) => {
      const report = await bench(resolve(terminal.cwd, model), flags, (note) => {
        if (!flags.json) terminal.printError(note);
      });
      terminal.print(flags.json ? JSON.stringify(report) : describe(report));
    });
}

/** Feeds that calls take in turns, so that none is measured by its own echo in the processor's caches. */
const FEEDS = 16;

async function bench(path: string, flags: BenchFlags, note: (text: string) => void): Promise<BenchReport> {
  const { createInlay } = await import('../node.ts');
  // What earlier runs on this machine have learned would make benches differ.
  const store = createMemoryStore();
  const inlay = createInlay({ store });
  const raws: RawSession[] = [];
  try {
    const model = await inlay.load(path);
    const signature = withSizes(model.signature, flags.dim);
    const feeds = Array.from({ length: FEEDS }, (_, seed) => randomFeeds(signature, seed));
    const feedsOf = (call: number): TensorMap => feeds[call % FEEDS] as TensorMap;
    if (flags.against === 'raw') raws.push(...(await openRaw(path, servedBy(inlay.info()))));
    const contestants: Contestant[] = [
      { name: 'inlay', run: (call) => model.run(feedsOf(call)) },
      ...raws.map(({ name, session }) => {
        const rawFeeds = feeds.map(toOrtFeeds);
        return { name, run: (call: number) => session.run(rawFeeds[call % FEEDS] as OrtFeeds) };
      }),
    ];
    const figures: (Figures & { readonly ratio?: number })[] = [];
    for (const concurrency of flags.concurrency) {
      note(`Measuring with ${concurrency} ${concurrency === 1 ? 'caller' : 'callers'} …`);
      figures.push(...withRatios(await measure(contestants, concurrency, flags.seconds)));
    }
    const served = servedBy(inlay.info());
    return {
      model: basename(path),
      feeds: Object.entries(feedsOf(0)).map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
      secondsEach: flags.seconds,
      machine: nodePlatform().hardware ?? process.arch,
      versions: { node: process.versions.node, ...versionOf(served.backend) },
      served,
      figures,
    };
  } finally {
    await inlay.close();
    await Promise.all([store.close(), ...raws.map(({ session }) => session.release())]);
  }
}

function servedBy({ models }: InlayInfo): InlayInfo['models'][number] {
  return models[0] as InlayInfo['models'][number];
}

interface RawSession {
  readonly name: string;
  readonly session: OrtSession;
}

type OrtFeeds = Readonly<Record<string, OrtTensor>>;

/** Opens the model as a host without Inlay would, with one thread and with all of them. */
async function openRaw(
  path: string,
  { backend, provider }: InlayInfo['models'][number],
): Promise<readonly RawSession[]> {
  const ort = await createLoader(() => import('onnxruntime-node'), 'onnxruntime-node')();
  const executionProviders = [backend === 'onnxruntime-node' ? provider : 'cpu'];
  const sessions: RawSession[] = [];
  for (const threads of new Set([1, availableParallelism()])) {
    const options = { executionProviders, intraOpNumThreads: threads, interOpNumThreads: 1 };
    const session = await ort.InferenceSession.create(path, options);
    sessions.push({ name: `raw, ${threads} ${threads === 1 ? 'thread' : 'threads'}`, session });
  }
  return sessions;
}

function toOrtFeeds(feeds: TensorMap): OrtFeeds {
  return Object.fromEntries(
    Object.entries(feeds).map(([name, { dtype, shape, data }]) => [
      name,
      { type: dtype, dims: shape, data, location: 'cpu' },
    ]),
  );
}

function withRatios(figures: readonly Figures[]): readonly (Figures & { readonly ratio?: number })[] {
  const [best] = figures.slice(1).sort((a, b) => b.callsPerSecond - a.callsPerSecond);
  return best === undefined ? figures : figures.map((own) => ({ ...own, ratio: ratioOf(own, best) }));
}

/** @throws {@link InputError} `ERR_INLAY_FEED_SHAPE` if no input has an axis of such a name. */
function withSizes({ inputs, outputs }: Signature, sizes: BenchFlags['dim']): Signature {
  const names = new Set(
    inputs.flatMap(({ shape }) => shape ?? []).filter((dimension) => typeof dimension === 'string'),
  );
  const unknown = Object.keys(sizes).find((name) => !names.has(name));
  if (unknown !== undefined) {
    throw new InputError(
      'ERR_INLAY_FEED_SHAPE',
      `No input has an axis "${unknown}"; the symbolic axes are ${[...names].join(', ') || 'none'}.`,
      { details: { axis: unknown } },
    );
  }
  return {
    outputs,
    inputs: inputs.map((spec) => ({
      ...spec,
      shape: spec.shape?.map((size) => (typeof size === 'string' ? (sizes[size] ?? size) : size)) ?? null,
    })),
  };
}

function versionOf(library: string): Record<string, string> {
  try {
    const { version } = createRequire(import.meta.url)(`${library}/package.json`) as { version: string };
    return { [library]: version };
  } catch {
    // A package may keep its manifest to itself.
    return {};
  }
}

function describe({ model, feeds, secondsEach, machine, versions, served, figures }: BenchReport): string {
  const isCompared = figures.some(({ ratio }) => ratio !== undefined);
  const head = ['callers', '', 'calls/s', 'p50 ms', 'p99 ms', ...(isCompared ? ['ratio'] : [])];
  const rows = figures.map(({ name, concurrency, callsPerSecond, p50Ms, p99Ms, ratio }) => [
    String(concurrency),
    name,
    ...[callsPerSecond, p50Ms, p99Ms].map(formatFigure),
    ...(ratio === undefined ? [] : [`${ratio.toFixed(2)}×`]),
  ]);
  const { backend, provider, placement, placementReason, queue } = served;
  const caps = queue.lanes.map(({ batchCap }) => batchCap);
  const batches =
    queue.unbatchable === undefined
      ? `batches of up to ${Math.max(1, ...caps)} samples`
      : `no batches, since ${queue.unbatchable}`;
  const facts = [
    `\`${model}\` with ${feeds.map((feed) => `\`${formatSpec(feed)}\``).join(', ')}`,
    `served by ${backend}, ${provider}, ${placement}${placementReason === undefined ? '' : ` (${placementReason})`}; ${batches}`,
    `${machine}; ${Object.entries(versions)
      .map((pair) => pair.join(' '))
      .join(', ')}; medians of rounds in turns, ${secondsEach} s each`,
  ];
  return `${markdownTable(head, rows)}\n\n${facts.map((fact) => `- ${fact}`).join('\n')}`;
}

function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) =>
    Math.max(3, ...[title, ...rows.map((row) => row[column] ?? '')].map(({ length }) => length)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, at) => (at === 1 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join(' | ')} |`;
  const rule = widths.map((width, at) => (at === 1 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  return [line(head), line(rule), ...rows.map(line)].join('\n');
}

/** Three digits, whatever the size. */
function formatFigure(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);
}

function toCounts(text: string): readonly number[] {
  return text.split(',').map((part) => {
    const count = Number(part);
    if (Number.isInteger(count) && count >= 1 && count <= 65_536) return count;
    throw new InvalidArgumentError('It is a list of whole numbers of at least 1, such as 1,8,64.');
  });
}

function toSeconds(text: string): number {
  const seconds = Number(text);
  if (seconds > 0 && seconds <= 3600) return seconds;
  throw new InvalidArgumentError('It is a number above 0, up to 3600.');
}
