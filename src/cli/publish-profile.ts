/** The reference profile of a release, made by running the model over reference data. */

import { basename } from 'node:path';
import type { TensorMap } from '../core/backend.ts';
import { BackendError, InputError, isInlayError } from '../core/errors.ts';
import { toUtf8 } from '../core/bytes.ts';
import { readElements } from '../core/tensor.ts';
import { createFeedBinder } from '../engine/feeds.ts';
import type { CheckedFile } from '../publish/check-model.ts';
import type { FeatureValue } from '../telemetry/feature-reading.ts';
import { chooseFeatures, createProfileBuilder, type ProfileBuilder } from '../telemetry/profile-builder.ts';
import type { Feature, Profile } from '../telemetry/profile.ts';
import { readProfile } from '../telemetry/profile-reader.ts';
import { bindColumns } from './data/columns.ts';
import { parseNumber } from './data/numbers.ts';
import { isDataPath, openDataFile } from './data/open-file.ts';
import type { Cell, DataFile } from './data/rows.ts';
import { atPlace, withCheckBackend } from './publish-check.ts';
import { table } from './terminal.ts';

/** What {@link makeProfile} is asked for. */
export interface ReferenceRequest {
  readonly file: CheckedFile;
  /** Absolute path of a data file, one example per row. */
  readonly data: string;
  /** The right classes: a column of the data, or the absolute path of a file with one column and as many rows. */
  readonly labels: string | undefined;
  readonly timeoutMs: number;
  /** Outputs whose bins are taken over. */
  readonly outputBins?: Profile['outputs'] | undefined;
}

/** A profile, and what it was made of. */
export interface ReferenceProfile {
  readonly profile: Profile;
  /** What devices get: JSON, one line. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly rows: number;
  readonly labelled: number;
}

/**
 * Runs a model over reference data in a child process, example by example, and counts what it sees and gives. The same
 * files give the same profile.
 * @throws {@link InputError} for data that does not fit the model, with its place; {@link BackendError} if the model cannot
 * be run; {@link ModelError} `ERR_INLAY_MODEL_INVALID` for a profile that is too large.
 */
export async function makeProfile({
  file,
  data,
  labels,
  timeoutMs,
  outputBins,
}: ReferenceRequest): Promise<ReferenceProfile> {
  const rows = await openLabelled(data, labels);
  try {
    return await withCheckBackend(timeoutMs, async (backend) => {
      const session = await backend.createSession({ bytes: file.bytes }, { provider: 'cpu' });
      try {
        const binding = bindColumns(session.signature, rows.file, []);
        const bind = createFeedBinder(session.signature);
        let builder: ProfileBuilder | undefined;
        let count = 0;
        let labelled = 0;
        for await (const { place, cells, label } of rows.read(binding.columns)) {
          const feeds = atPlace(place, () => bind(binding.toFeeds(cells).feeds));
          const outputs = await session.run(feeds).catch((error: unknown) => fails(place, error));
          builder ??= createProfileBuilder(chooseFeatures(feeds, outputs), outputBins);
          builder.add(feeds, outputs, label);
          count += 1;
          if (label !== undefined) labelled += 1;
        }
        if (builder === undefined) throw holdsNothing(data);
        const profile = builder.build();
        const bytes = toUtf8(JSON.stringify(profile));
        // What is signed is what devices can read.
        readProfile(bytes);
        return { profile, bytes, rows: count, labelled };
      } finally {
        await session.release().catch(() => {});
      }
    });
  } finally {
    await rows.close();
  }
}

/** Shows a profile to whoever is about to sign it. */
export function describeProfile({ profile, rows, labelled }: ReferenceProfile): string {
  const { inputs, outputs, prediction, accuracy } = profile;
  const lines = [
    `Reference profile of ${rows} examples`,
    table(
      ['feature', 'of', 'reading', 'bins'],
      [
        ...Object.entries(inputs).map(([name, feature]) => rowOf(name, 'input', feature)),
        ...Object.entries(outputs).map(([name, feature]) => rowOf(name, 'output', feature)),
      ],
    ),
  ];
  if (prediction !== undefined && accuracy !== undefined)
    lines.push(`${prediction} is right in ${Number((100 * accuracy).toFixed(2))} % of ${labelled} labels`);
  return lines.join('\n');
}

function rowOf(name: string, kind: string, feature: Feature): readonly string[] {
  const bins =
    feature.type === 'number'
      ? `${feature.edges.length - 1} from ${short(feature.edges[0])} to ${short(feature.edges.at(-1))}`
      : `${feature.values.length} classes`;
  return [name, `${kind} ${feature.tensor}`, feature.reading, bins];
}

function short(edge = 0): string {
  return String(Number(edge.toPrecision(4)));
}

interface LabelledRow {
  /** Where it stands, for messages. */
  readonly place: string;
  readonly cells: Readonly<Record<string, Cell>>;
  readonly label: FeatureValue | undefined;
}

interface LabelledRows {
  /** The data without its labels. */
  readonly file: DataFile;
  read(columns: readonly string[]): AsyncIterable<LabelledRow>;
  close(): Promise<void>;
}

/** Opens data with its labels, which lie in it or beside it. */
async function openLabelled(path: string, labels: string | undefined): Promise<LabelledRows> {
  const file = await openDataFile(path);
  if (labels === undefined || !isDataPath(labels)) {
    if (labels !== undefined && file.columns?.includes(labels) === false) {
      await file.close();
      throw new InputError(
        'ERR_INLAY_FEED_MISSING',
        `${file.name} has no column "${labels}" as --labels names it; name another one, or a file.`,
      );
    }
    return {
      file: without(file, labels),
      read: (columns) => readTogether(file, columns, labels),
      close: file.close,
    };
  }
  const beside = await openDataFile(labels).catch(async (error: unknown) => {
    await file.close();
    throw error;
  });
  return {
    file,
    read: (columns) => readBeside(file, columns, beside),
    close: async () => {
      await Promise.all([file.close(), beside.close()]);
    },
  };
}

/** Labels feed no input. */
function without(file: DataFile, label: string | undefined): DataFile {
  if (label === undefined || file.columns === undefined) return file;
  const columns = file.columns.filter((column) => column !== label);
  const together = columns.length === 1 ? columns : file.together.filter((column) => column !== label);
  return { ...file, columns, together };
}

async function* readTogether(
  file: DataFile,
  columns: readonly string[],
  label: string | undefined,
): AsyncIterable<LabelledRow> {
  const read = label === undefined ? columns : [...columns, label];
  for await (const { place: at, cells, error } of file.rows(read, 0)) {
    if (error) throw error;
    const place = `${file.name}, ${at}`;
    yield { place, cells, label: label === undefined ? undefined : labelOf(place, cells[label]) };
  }
}

async function* readBeside(
  file: DataFile,
  columns: readonly string[],
  labels: DataFile,
): AsyncIterable<LabelledRow> {
  const { columns: [column = 'label', ...others] = [] } = labels;
  if (others.length > 0) {
    throw new InputError(
      'ERR_INLAY_FEED_UNKNOWN',
      `${labels.name} has more columns than "${column}"; labels lie in a file with one column.`,
    );
  }
  const beside = labels.rows([column], 0)[Symbol.asyncIterator]();
  const unequal = (): InputError =>
    new InputError(
      'ERR_INLAY_FEED_SHAPE',
      `${labels.name} does not have as many rows as ${file.name}; each example has a label, which may be empty.`,
    );
  try {
    for await (const { place: at, cells, error } of file.rows(columns, 0)) {
      if (error) throw error;
      const next = await beside.next();
      if (next.done === true) throw unequal();
      if (next.value.error) throw next.value.error;
      const label = labelOf(`${labels.name}, ${next.value.place}`, next.value.cells[column]);
      yield { place: `${file.name}, ${at}`, cells, label };
    }
    if ((await beside.next()).done !== true) throw unequal();
  } finally {
    await beside.return?.();
  }
}

/** A class as models give it: its index, or a name. `undefined` for none: empty, null or NaN. */
function labelOf(place: string, cell: Cell | undefined): FeatureValue | undefined {
  if (cell === undefined) return undefined;
  const value =
    cell.kind === 'text'
      ? (parseNumber(cell.text) ?? cell.text.trim())
      : cell.kind === 'json'
        ? cell.value
        : cell.tensor.size === 1
          ? readElements(cell.tensor.dtype, cell.tensor.data, 1)[0]
          : {};
  if (value === null || value === undefined || value === '') return undefined;
  if (typeof value === 'object') {
    throw new InputError(
      'ERR_INLAY_FEED_VALUE',
      `${place}, has several values for a label; a label is one class, such as 7 or "cat".`,
    );
  }
  if (typeof value === 'string') return value;
  const number = Number(value);
  return Number.isNaN(number) ? undefined : number;
}

function fails(place: string, error: unknown): TensorMap {
  if (!isInlayError(error) || error.code !== 'ERR_INLAY_RUN_FAILED') throw error;
  throw new BackendError('ERR_INLAY_RUN_FAILED', `${place}, cannot be run: ${error.message}`, {
    cause: error,
    details: error.details,
  });
}

function holdsNothing(path: string): InputError {
  return new InputError(
    'ERR_INLAY_FEED_MISSING',
    `${basename(path)} holds no examples; a profile needs some hundreds.`,
  );
}
