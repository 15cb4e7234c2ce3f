import { join } from 'node:path';
import { it } from 'vitest';
import { testApp } from './harness/app.ts';
import { root } from './harness/bundle.ts';
import { reportCases } from './harness/cases.ts';
import { playScript, runtimeFor, testsIn } from './harness/process.ts';

const deno = runtimeFor('deno');
const FLAGS: readonly string[] = ['run', '--allow-all'];
/** All that an app needs: native code, the cache, child processes, and its sync server. */
const APP_FLAGS: readonly string[] = [
  'run',
  '--no-prompt',
  ...['ffi', 'read', 'write', 'env', 'sys', 'run', 'net'].map((right) => `--allow-${right}`),
];
/** Of Node's own tests, those of what this runtime does in Node's place. */
const NODE_TESTS = [
  'backend-onnxruntime-node',
  'backend-onnxruntime-web',
  'store-fs',
  'store-fs-fallback',
  'worker-faults',
  'worker-process',
  'worker-realm',
];
/** Cases about Node alone. */
const NOT_HERE = {
  'starts workers from a script on the command line, too': 'it is about flags of Node',
};

if (deno === undefined) it.skip('Deno');
else {
  const node = NODE_TESTS.map((name) => join(root, 'test/node', `${name}.test.ts`));
  const played = await playScript(deno, FLAGS, 'deno', [...testsIn('core'), ...node]);
  reportCases(`Deno ${deno.version}`, played, 1000, NOT_HERE);
  testApp('deno', deno, APP_FLAGS);
}
