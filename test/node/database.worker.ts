/** Opens or moves a database and tells how far it is, until it is done or killed. */

import { moveDatabase } from '../../src/server/db/move.ts';
import { openDatabase } from '../../src/server/db/open.ts';

const [from = '', to] = process.argv.slice(2);

console.log('begin');
if (to === undefined) {
  const { db } = await openDatabase(from);
  await db.destroy();
} else {
  const source = await openDatabase(from);
  const target = await openDatabase(to, { forMove: true });
  await moveDatabase(source, target, {
    now: () => Date.now(),
    onProgress: (table, rows, of) => console.log(`${table} ${rows}/${of}`),
  });
  await source.db.destroy();
  await target.db.destroy();
}
console.log('done');
