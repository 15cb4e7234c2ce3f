import { join } from 'node:path';
import { it } from 'vitest';
import { testApp } from './harness/app.ts';
import { root } from './harness/bundle.ts';
import { reportCases } from './harness/cases.ts';
import { playScript, runtimeFor, testsIn } from './harness/process.ts';

const bun = runtimeFor('bun');
const FLAGS: readonly string[] = [];
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

if (bun === undefined) it.skip('Bun');
else {
  const node = NODE_TESTS.map((name) => join(root, 'test/node', `${name}.test.ts`));
  const played = await playScript(bun, FLAGS, 'bun', [...testsIn('core'), ...node]);
  reportCases(`Bun ${bun.version}`, played, 1000, NOT_HERE);
  testApp('bun', bun, FLAGS);
}
