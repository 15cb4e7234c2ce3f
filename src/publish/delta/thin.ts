/**
 * Linear algebra of thin matrices: a few long vectors, one after the other. Only +, −, ×, ÷ and square roots, in a fixed
 * order: the same numbers come out everywhere.
 */

/** A matrix of numbers in C order. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}

/** Multiplies a matrix with vectors that are as long as its rows; four at a time, as each number is read once for them. */
export function multiply({ rows, columns, values }: Matrix, vectors: Float64Array): Float64Array {
  const count = vectors.length / columns;
  const products = new Float64Array(count * rows);
  for (let i = 0; i < rows; i += 1) {
    const start = i * columns;
    for (let k = 0; k < count; k += 4) {
      const [k1, k2, k3] = [
        Math.min(k + 1, count - 1),
        Math.min(k + 2, count - 1),
        Math.min(k + 3, count - 1),
      ];
      let [s0, s1, s2, s3] = [0, 0, 0, 0];
      for (let j = 0; j < columns; j += 1) {
        const value = values[start + j] as number;
        s0 += value * (vectors[k * columns + j] as number);
        s1 += value * (vectors[k1 * columns + j] as number);
        s2 += value * (vectors[k2 * columns + j] as number);
        s3 += value * (vectors[k3 * columns + j] as number);
      }
      products[k * rows + i] = s0;
      products[k1 * rows + i] = s1;
      products[k2 * rows + i] = s2;
      products[k3 * rows + i] = s3;
    }
  }
  return products;
}

/** Multiplies the transpose of a matrix with vectors that are as long as its columns; four rows at a time. */
export function multiplyTransposed({ rows, columns, values }: Matrix, vectors: Float64Array): Float64Array {
  const count = vectors.length / rows;
  const products = new Float64Array(count * columns);
  for (let i = 0; i < rows; i += 4) {
    const start = i * columns;
    const start1 = Math.min(i + 1, rows - 1) * columns;
    const start2 = Math.min(i + 2, rows - 1) * columns;
    const start3 = Math.min(i + 3, rows - 1) * columns;
    for (let k = 0, to = 0; k < count; k += 1, to += columns) {
      const at = k * rows + i;
      const f0 = vectors[at] as number;
      const f1 = i + 1 < rows ? (vectors[at + 1] as number) : 0;
      const f2 = i + 2 < rows ? (vectors[at + 2] as number) : 0;
      const f3 = i + 3 < rows ? (vectors[at + 3] as number) : 0;
      for (let j = 0; j < columns; j += 1) {
        products[to + j] =
          (products[to + j] as number) +
          f0 * (values[start + j] as number) +
          f1 * (values[start1 + j] as number) +
          f2 * (values[start2 + j] as number) +
          f3 * (values[start3 + j] as number);
      }
    }
  }
  return products;
}

/** Sums products of two runs; four sums at a time, so that none waits for the one before. */
export function dot(
  a: Float64Array,
  b: Float64Array,
  fromA = 0,
  fromB = 0,
  length: number = a.length,
): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  const end = fromA + length;
  let i = fromA;
  let j = fromB;
  for (; i + 3 < end; i += 4, j += 4) {
    s0 += (a[i] as number) * (b[j] as number);
    s1 += (a[i + 1] as number) * (b[j + 1] as number);
    s2 += (a[i + 2] as number) * (b[j + 2] as number);
    s3 += (a[i + 3] as number) * (b[j + 3] as number);
  }
  for (; i < end; i += 1, j += 1) s0 += (a[i] as number) * (b[j] as number);
  return s0 + s1 + (s2 + s3);
}

/** Views of the vectors. */
export function vectorsOf(all: Float64Array, length: number): Float64Array[] {
  return Array.from({ length: all.length / length }, (_, k) => all.subarray(k * length, (k + 1) * length));
}

/** Makes vectors orthonormal in place (modified Gram-Schmidt, twice). One that depends on those before it becomes 0. */
export function orthonormalize(all: Float64Array, length: number): void {
  const vectors = vectorsOf(all, length);
  vectors.forEach((vector, k) => {
    const before = Math.sqrt(dot(vector, vector));
    for (const other of [...vectors.slice(0, k), ...vectors.slice(0, k)])
      add(vector, other, -dot(vector, other));
    const norm = Math.sqrt(dot(vector, vector));
    const scale = norm > before * 1e-12 ? 1 / norm : 0;
    for (let i = 0; i < length; i += 1) vector[i] = (vector[i] as number) * scale;
  });
}

function add(vector: Float64Array, other: Float64Array, factor: number): void {
  for (let i = 0; i < vector.length; i += 1) {
    vector[i] = (vector[i] as number) + factor * (other[i] as number);
  }
}

/** Scalar products of all vectors with each other, `count * count`. */
export function gram(all: Float64Array, length: number): Float64Array {
  const vectors = vectorsOf(all, length);
  return Float64Array.from(vectors.flatMap((a) => vectors.map((b) => dot(a, b))));
}

/** Eigenvalues, the largest first, and their unit vectors one after the other. */
export interface Eigen {
  readonly values: Float64Array;
  readonly vectors: Float64Array;
}

const MAX_SWEEPS = 30;

/** Finds the eigenvectors of a symmetric matrix (cyclic Jacobi: Golub and Van Loan, Matrix Computations, §8.5). */
export function eigenOf(symmetric: Float64Array, size: number): Eigen {
  const a = symmetric.slice();
  const v = new Float64Array(size * size);
  for (let i = 0; i < size; i += 1) v[i * size + i] = 1;
  const at = (i: number, j: number): number => a[i * size + j] as number;
  let trace = 0;
  for (let i = 0; i < size; i += 1) trace += Math.abs(at(i, i));
  const small = trace * 1e-17;
  let isDone = false;
  for (let sweep = 0; sweep < MAX_SWEEPS && !isDone; sweep += 1) {
    isDone = true;
    for (let p = 0; p < size; p += 1) {
      for (let q = p + 1; q < size; q += 1) {
        const apq = at(p, q);
        if (!(Math.abs(apq) > small)) continue;
        isDone = false;
        const theta = (at(q, q) - at(p, p)) / (2 * apq);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        rotate(a, p, q, { size, c, s, isColumns: true });
        rotate(a, p, q, { size, c, s, isColumns: false });
        rotate(v, p, q, { size, c, s, isColumns: false });
      }
    }
  }
  const order = Array.from({ length: size }, (_, i) => i).sort((i, j) => at(j, j) - at(i, i) || i - j);
  return {
    values: Float64Array.from(order, (i) => Math.max(0, at(i, i))),
    vectors: Float64Array.from(order.flatMap((i) => [...v.subarray(i * size, (i + 1) * size)])),
  };
}

interface Rotation {
  readonly size: number;
  readonly c: number;
  readonly s: number;
  /** Whether columns are turned, not rows. */
  readonly isColumns: boolean;
}

function rotate(a: Float64Array, p: number, q: number, { size, c, s, isColumns }: Rotation): void {
  for (let i = 0; i < size; i += 1) {
    const ip = isColumns ? i * size + p : p * size + i;
    const iq = isColumns ? i * size + q : q * size + i;
    const x = a[ip] as number;
    const y = a[iq] as number;
    a[ip] = c * x - s * y;
    a[iq] = s * x + c * y;
  }
}

/** Adds vectors up, as each run of `factors` says. */
export function combine(all: Float64Array, length: number, factors: Float64Array): Float64Array {
  const vectors = vectorsOf(all, length);
  const sums = new Float64Array((factors.length / vectors.length) * length);
  vectorsOf(sums, length).forEach((sum, k) => {
    vectors.forEach((vector, l) => add(sum, vector, factors[k * vectors.length + l] as number));
  });
  return sums;
}
