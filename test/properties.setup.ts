/**
 * Properties try the same cases at every run, so that a change is judged by what it changes. `INLAY_TEST_THOROUGH=1`
 * tries others each time.
 */
import fc from 'fast-check';

const env = (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env ?? {};
if (env['INLAY_TEST_THOROUGH'] !== '1') fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: 20_261_122 });
