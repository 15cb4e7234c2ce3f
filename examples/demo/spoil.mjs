import { readFile, writeFile } from 'node:fs/promises';
import { Tensor } from 'inlay';
import { ATTRIBUTE, encodeModel, fromTensorProto, parseModel, toTensorProto } from 'inlay/onnx';

/** Copies a model with weights in its last layer that are no numbers, as a training that diverged leaves them. */
export async function spoilModel(from, to) {
  const model = parseModel(await readFile(from));
  const { graph } = model;
  const last = graph.initializer.at(-1);
  const { dtype, shape, data } = fromTensorProto(last);
  const spoiled = toTensorProto(
    last.name,
    new Tensor(
      dtype,
      shape,
      data.map(() => Number.NaN),
    ),
  );
  const initializer = [...graph.initializer.slice(0, -1), spoiled];
  await writeFile(to, encodeModel({ ...model, graph: { ...graph, initializer } }));
}

/** Height and width of what {@link smoothInputs} averages over, pixels. */
const SIDE = 5;
/** How far a pixel becomes the mean of those around it. */
const STRENGTH = 0.5;
/** Copies of the image that it computes, so that it takes its time. */
const COPIES = 24;

/**
 * Copies a model that smooths its image first, as nobody did in training: it is right a little less often, far less sure
 * of itself, and slower. Each device on its own takes that for normal.
 */
export async function smoothInputs(from, to) {
  const model = parseModel(await readFile(from));
  const { graph } = model;
  const [first, ...rest] = graph.node;
  const [image, ...weights] = first.input;
  const initializer = [
    kernel('smooth.spread', [COPIES, 1, SIDE, SIDE], 1),
    kernel('smooth.gather', [1, COPIES, SIDE, SIDE], 1 / COPIES),
    ...graph.initializer,
  ];
  const node = [
    convolution(image, 'smooth.spread', 'copies'),
    convolution('copies', 'smooth.gather', 'smoothed'),
    { ...first, input: ['smoothed', ...weights] },
    ...rest,
  ];
  await writeFile(to, encodeModel({ ...model, graph: { ...graph, node, initializer } }));
}

function kernel(name, shape, scale) {
  const area = SIDE * SIDE;
  const middle = (area - 1) / 2;
  const values = Float32Array.from({ length: COPIES * area }, (_value, at) => {
    const itself = at % area === middle ? 1 : 0;
    return scale * ((1 - STRENGTH) * itself + STRENGTH / area);
  });
  return toTensorProto(name, new Tensor('float32', shape, values));
}

function convolution(input, weights, output) {
  const pads = BigInt64Array.from({ length: 4 }, () => BigInt((SIDE - 1) / 2));
  const attribute = [{ name: 'pads', type: ATTRIBUTE.ints, ints: pads }];
  return { name: output, opType: 'Conv', input: [input, weights], output: [output], attribute };
}
