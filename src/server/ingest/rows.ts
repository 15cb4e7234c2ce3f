/** Many rows in few statements. */

/** Values that one statement may bind: SQLite takes 32,766, PostgreSQL 65,535. */
const mostValues = 20_000;

/** Cuts rows into pieces that one statement takes. */
export function inPieces<Row extends object>(rows: readonly Row[]): Row[][] {
  const columns = Object.keys(rows[0] ?? {}).length;
  const length = Math.max(1, Math.floor(mostValues / Math.max(1, columns)));
  return Array.from({ length: Math.ceil(rows.length / length) }, (_, i) =>
    rows.slice(i * length, (i + 1) * length),
  );
}
