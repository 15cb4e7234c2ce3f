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
