/** The cheapest way over several patches, as publishers and devices both reckon it. */

/** One step: what makes a file, out of another one or out of nothing. */
export interface Edge {
  /** SHA-256 of the file that it starts from; absent: it starts from none. */
  readonly from?: string | undefined;
  /** SHA-256 of the file that it makes. */
  readonly to: string;
  /** More than 0, bytes. */
  readonly cost: number;
}

/** What one request costs beside its bytes, in bytes: a path of many small patches is no faster than one patch. */
export const requestBytes = 4096;

/** A path, and what it costs. */
export interface Path<Step extends Edge> {
  readonly cost: number;
  readonly steps: readonly Step[];
}

/**
 * Finds the cheapest path to a file from the files that are there (E. W. Dijkstra, "A note on two problems in connexion
 * with graphs", Numerische Mathematik 1, 1959). Of paths that cost the same, it is the one whose edges were named first.
 * The time is that of the square of the edges, of which there are few.
 * @returns without a step for a file that is there; `undefined` where no path leads to it.
 */
export function cheapestPath<Step extends Edge>(
  edges: readonly Step[],
  present: Iterable<string>,
  target: string,
): Path<Step> | undefined {
  const here: Path<Step> = { cost: 0, steps: [] };
  const settled = new Map<string | undefined, Path<Step>>(
    [undefined, ...present].map((name) => [name, here]),
  );
  while (!settled.has(target)) {
    let nearest: (Path<Step> & { readonly to: string }) | undefined;
    for (const edge of edges) {
      const before = settled.get(edge.from);
      if (before === undefined || settled.has(edge.to)) continue;
      const cost = before.cost + edge.cost;
      if (nearest === undefined || cost < nearest.cost)
        nearest = { to: edge.to, cost, steps: [...before.steps, edge] };
    }
    if (nearest === undefined) return undefined;
    settled.set(nearest.to, nearest);
  }
  return settled.get(target);
}
