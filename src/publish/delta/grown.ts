/** Tensors that gained or lost rows: more words of a vocabulary, more classes. */
import type { Span } from './spans.ts';

/** Tensors of both files, some of them cut in two. */
export interface Aligned {
  readonly base: readonly Span[];
  readonly next: readonly Span[];
}

/** Cuts tensors of the same name that differ in their number of rows, so that the rows that both have can be paired. */
export function alignGrown(base: readonly Span[], next: readonly Span[]): Aligned {
  return { base: cutAll(base, next), next: cutAll(next, base) };
}

function cutAll(spans: readonly Span[], others: readonly Span[]): readonly Span[] {
  const byName = new Map(others.map((span) => [span.name, span]));
  return spans.flatMap((span) => {
    const other = byName.get(span.name);
    return other && isShorter(other, span) ? cut(span, other.shape[0] as number) : [span];
  });
}

function isShorter(a: Span, b: Span): boolean {
  const hasSameRows =
    a.numbers === b.numbers &&
    a.shape.length === b.shape.length &&
    a.shape.length > 1 &&
    a.shape.every((length, axis) => axis === 0 || length === b.shape[axis]);
  return hasSameRows && (a.shape[0] as number) < (b.shape[0] as number);
}

function cut(span: Span, rows: number): readonly Span[] {
  const [all = 1, ...rest] = span.shape;
  const sizeBytes = (span.sizeBytes / all) * rows;
  return [
    { ...span, shape: [rows, ...rest], sizeBytes },
    {
      ...span,
      shape: [all - rows, ...rest],
      offset: span.offset + sizeBytes,
      sizeBytes: span.sizeBytes - sizeBytes,
    },
  ];
}
