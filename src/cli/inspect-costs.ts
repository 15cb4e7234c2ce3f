import { isInlayError } from '../core/errors.ts';
import { costsOf, type CostReport } from '../onnx/costs.ts';
import { parseModel } from '../onnx/model.ts';
import { feedsOf, toShape, type ValueTypes } from '../onnx/types.ts';
import { openModelFile } from '../optimize-node/model-file.ts';
import { openTarget } from '../optimize-node/target.ts';
import { inferTypes } from '../optimize/types.ts';
import { none } from './format.ts';
import { formatBytes, formatShape, table } from './terminal.ts';

/** What `inlay inspect --costs` shows. */
export interface FileCosts extends CostReport {
  /** Where the shapes of values between nodes come from. */
  readonly types: 'onnxruntime' | 'model';
  /** Why onnxruntime has not said them. */
  readonly reason?: string;
  /** Names of the inputs' axes whose lengths are not given. */
  readonly axes: readonly string[];
  /** Lengths that are taken for granted: first axes, of which a run has at least one row. */
  readonly assumed: Readonly<Record<string, number>>;
}

/** Tells what the parts of a model file weigh and compute, with shapes that onnxruntime infers, if it can. */
export async function costsOfFile(
  path: string,
  bytes: Uint8Array,
  given: Readonly<Record<string, number>>,
): Promise<FileCosts> {
  const model = parseModel(bytes);
  const shapes = feedsOf(model.graph).map(({ type }) => toShape(type?.tensorType?.shape) ?? []);
  const inputs = shapes.flat();
  const stray = Object.keys(given).find((name) => !inputs.includes(name));
  if (stray !== undefined) {
    const known = [...new Set(inputs.filter((axis) => typeof axis === 'string'))];
    throw new RangeError(
      `No input has an axis called ${stray}, which --dim names; ${known.length === 0 ? 'the lengths of all of them are fixed' : `there is ${known.join(', ')}`}.`,
    );
  }
  const rows = shapes.flatMap(([axis]) =>
    typeof axis === 'string' && !Object.hasOwn(given, axis) ? [[axis, 1] as const] : [],
  );
  const assumed = Object.fromEntries(rows);
  const lengths = { ...assumed, ...given };
  const symbols = inputs.filter((axis) => typeof axis === 'string' && !Object.hasOwn(lengths, axis));
  const axes = [...new Set(symbols.map(String))];
  try {
    const types = await typesOfFile(path);
    return { types: 'onnxruntime', axes, assumed, ...costsOf(model, { types, lengths }) };
  } catch (error) {
    if (!isInlayError(error)) throw error;
    return { types: 'model', reason: error.message, axes, assumed, ...costsOf(model, { lengths }) };
  }
}

async function typesOfFile(path: string): Promise<ValueTypes> {
  const { model } = await openModelFile(path);
  const runtime = await openTarget('node-cpu');
  try {
    return await inferTypes(model, runtime);
  } finally {
    await runtime.close();
  }
}

/** Writes costs as tables: operators, and the largest of nodes and tensors. */
export function describeCosts(
  { nodes, tensors, operators, total, types, reason, axes, assumed }: FileCosts,
  top: number,
): string {
  const heaviest = nodes
    .filter(({ flops, weightBytes }) => (flops ?? 0) > 0 || weightBytes > 0)
    .sort((a, b) => (b.flops ?? -1) - (a.flops ?? -1) || b.weightBytes - a.weightBytes)
    .slice(0, top);
  const work = formatCount(total.flops);
  return [
    table(
      ['operator', 'nodes', 'MACs', 'FLOPs', 'unknown', 'weights'],
      operators.map((row) => [
        row.op,
        String(row.nodes),
        formatCount(row.macs),
        row.unknown === row.nodes ? none : formatCount(row.flops),
        row.unknown === 0 ? '' : String(row.unknown),
        formatBytes(row.weightBytes),
      ]),
    ),
    table(
      ['heaviest nodes', 'operator', 'FLOPs', 'weights', 'gives'],
      heaviest.map((row) => [
        row.node,
        row.op,
        formatCount(row.flops),
        formatBytes(row.weightBytes),
        row.outputBytes === null ? none : formatBytes(row.outputBytes),
      ]),
    ),
    table(
      ['largest tensors', 'role', 'dtype', 'shape', 'size', 'readers'],
      tensors
        .slice(0, top)
        .map((row) => [
          row.name,
          row.role,
          row.dtype ?? none,
          formatShape(row.shape),
          row.sizeBytes === null ? none : formatBytes(row.sizeBytes),
          String(row.readers),
        ]),
    ),
    total.unknown === 0
      ? `One run takes ${work} FLOPs.`
      : `One run takes at least ${work} FLOPs; for ${total.unknown} of ${nodes.filter(({ isInBody }) => !isInBody).length} nodes it is unknown.`,
    ...(types === 'model'
      ? [`Shapes are those that the model states: ${reason ?? 'nothing else is known.'}`]
      : []),
    ...(Object.keys(assumed).length > 0
      ? [`Counted with ${Object.keys(assumed).join(' = ')} = 1; give other lengths with --dim.`]
      : []),
    ...(axes.length > 0
      ? [`Axes of unknown length: ${axes.join(', ')}; give them with --dim, as in --dim ${axes[0]}=1.`]
      : []),
  ].join('\n\n');
}

function formatCount(count: number | null): string {
  if (count === null) return none;
  const units = ['', ' k', ' M', ' G', ' T'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, count)) / 3));
  return `${power === 0 ? count : (count / 1000 ** power).toPrecision(3)}${units[power]}`;
}
