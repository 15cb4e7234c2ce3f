// A process that shares a file store with others: `node store-fs-child.mjs <directory> <task> <count>`.
import { writeSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { openFsStore } from '../../build/stores/fs.js';

const [directory, task, count] = process.argv.slice(2);
const store = openFsStore({ directory });
const say = (line) => writeSync(1, `${line}\n`);

if (task === 'count') {
  for (let i = 0; i < Number(count); i += 1) {
    await store.updateRecord('count', (present) =>
      Buffer.from(String(Number(present ? Buffer.from(present) : 0) + 1)),
    );
    say(`updated ${i}`);
  }
} else if (task === 'put') {
  for (let i = 0; i < Number(count); i += 1) {
    const content = Buffer.alloc(100_000, i);
    await store.putBlob(createHash('sha256').update(content).digest('hex'), content);
  }
} else if (task === 'hang') {
  await store.updateRecord('count', () => {
    say('inside');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  });
}
