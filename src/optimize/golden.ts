/** A few inputs with the answers of the original, which devices try releases with. */

import type { TensorMap } from '../core/backend.ts';
import type { GoldenCase } from '../update/golden.ts';

/** Cases that tell a broken model; every device runs them. */
const mostCases = 4;
/** Bytes of all tensors: a quarter of what devices read at most, since base64 takes more. */
const mostBytes: number = 2 ** 21;

/** Takes the first samples whose answers are finite, as many as devices should be sent. */
export function goldenCases(
  samples: readonly TensorMap[],
  answers: readonly TensorMap[],
): readonly GoldenCase[] {
  const cases: GoldenCase[] = [];
  let sizeBytes = 0;
  for (const [i, inputs] of samples.entries()) {
    const outputs = answers[i];
    if (outputs === undefined || !areFinite(outputs)) continue;
    sizeBytes += sizeOf(inputs) + sizeOf(outputs);
    if (cases.length === mostCases || sizeBytes > mostBytes) break;
    cases.push({ inputs, outputs });
  }
  return cases;
}

function sizeOf(tensors: TensorMap): number {
  return Object.values(tensors).reduce((sum, tensor) => sum + tensor.sizeBytes, 0);
}

function areFinite(outputs: TensorMap): boolean {
  return Object.values(outputs).every(
    ({ data }) =>
      !(data instanceof Float32Array || data instanceof Float64Array) || data.every(Number.isFinite),
  );
}
