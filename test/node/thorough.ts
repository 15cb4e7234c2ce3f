/**
 * How far apart the steps are that a sweep over all steps tries. Sweeps of minutes take some of the steps, and all of them
 * with `INLAY_TEST_THOROUGH=1`.
 */
export const strideOf = (usual: number): number => (process.env['INLAY_TEST_THOROUGH'] === '1' ? 1 : usual);
