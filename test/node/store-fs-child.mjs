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
} else if (task === 'part') {
  // Pieces of 10,000 bytes, each of its own number; the note says how many there are.
  const total = Number(count);
  const whole = Buffer.concat(Array.from({ length: total }, (_, i) => Buffer.alloc(10_000, i)));
  const part = await store.openPartial(createHash('sha256').update(whole).digest('hex'), whole.length);
  for (let i = part.note ? Number(Buffer.from(part.note)) : 0; i < total; i += 1) {
    await part.write(i * 10_000, Buffer.alloc(10_000, i));
    if (i % 3 === 0) await part.save(Buffer.from(String(i + 1)));
    say(`wrote ${i}`);
  }
  // What is already written is believed, so that a note that says too much would show.
  const blob = await part.finish(createHash('sha256').update(whole).digest('hex'));
  say(`finished ${blob.sha256}`);
}
