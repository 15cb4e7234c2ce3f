import { Tensor } from '../../src/core/tensor.ts';

/** 20·log10(‖x‖ / ‖x − y‖) */
export function sqnrDb(expected: Float32Array, actual: Float32Array): number {
  const power = (values: Float32Array): number => values.reduce((sum, value) => sum + value ** 2, 0);
  return 10 * Math.log10(power(expected) / power(expected.map((value, i) => value - (actual[i] as number))));
}

/** Standard normal numbers, the same each time. */
export function createNoise(seed = 1): (shape: readonly number[], scale?: number) => Tensor<'float32'> {
  let state = seed;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return (shape, scale = 1) => {
    const size = shape.reduce((product, length) => product * length, 1);
    const values = Float32Array.from(
      { length: size },
      () => scale * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
    );
    return new Tensor('float32', shape, values);
  };
}
