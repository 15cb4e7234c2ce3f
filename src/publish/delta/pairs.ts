/** Finds for each tensor the one of the base that it most likely came from. */
import { NUMBER_BITS } from '../../update/delta/bounds.ts';
import { groupBy } from './group.ts';
import type { Span } from './spans.ts';

/** Bytes of a tensor that two are compared by. */
const SAMPLE = 64;
/** Most tensors of the same size that one is compared with. */
const MAX_RIVALS = 64;

/** Tells the tensor of the base that one of the next file is told from; `undefined` if there is none of its size. */
export type FindBase = (span: Span) => Span | undefined;

/**
 * Remembers the tensors of a base. Of those of the same size and kind, the one is taken whose numbers are nearest: the
 * same content under another name or at another place is found, and a name that now means another tensor does no harm.
 */
export function createBaseFinder(base: Uint8Array, spans: readonly Span[], next: Uint8Array): FindBase {
  const keyOf = ({ numbers, sizeBytes }: Span): string => `${numbers} ${sizeBytes}`;
  const alike = groupBy(spans, keyOf);
  const byContent = new Map<string, Span>();
  for (const span of spans) {
    const content = `${keyOf(span)} ${sampleOf(base, span).join()}`;
    if (!byContent.has(content)) byContent.set(content, span);
  }
  return (span) => {
    const rivals = alike.get(keyOf(span)) ?? [];
    const named = rivals.find(({ name }) => name === span.name);
    const sample = sampleOf(next, span);
    const equal = byContent.get(`${keyOf(span)} ${sample.join()}`);
    const candidates = [named, equal, ...rivals.slice(0, MAX_RIVALS)].filter((rival) => rival !== undefined);
    let best: Span | undefined;
    let least = Infinity;
    for (const rival of candidates) {
      const distance = distanceOf(sample, sampleOf(base, rival));
      if (distance < least) [best, least] = [rival, distance];
    }
    return best;
  };
}

/** Numbers spread over a tensor, the most significant byte of each and the one below. */
function sampleOf(file: Uint8Array, { numbers, offset, sizeBytes }: Span): Uint16Array {
  const step = Math.max(1, NUMBER_BITS[numbers] / 8);
  const count = Math.floor(sizeBytes / step);
  const size = Math.min(SAMPLE, count);
  const sample = new Uint16Array(size);
  for (let i = 0; i < size; i += 1) {
    const end = offset + (Math.floor((i * count) / size) + 1) * step - 1;
    sample[i] = step === 1 ? (file[end] as number) : ((file[end] as number) << 8) | (file[end - 1] as number);
  }
  return sample;
}

function distanceOf(a: Uint16Array, b: Uint16Array): number {
  let distance = 0;
  for (let i = 0; i < a.length; i += 1) distance += Math.abs((a[i] as number) - (b[i] as number));
  return distance;
}
