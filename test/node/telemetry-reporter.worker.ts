/** A reporter in a process of its own, which is killed at any time; `telemetry-kill.test.ts` starts it. */
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { nodePlatform } from '../../src/platform-node.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import { createSender } from '../../src/telemetry/sender.ts';
import { createSpool } from '../../src/telemetry/spool.ts';
import { joinWindows } from '../../src/telemetry/window-join.ts';

const [directory = '', url = '', run = '', rounds = '0'] = process.argv.slice(2);
const platform = nodePlatform();
const store = openFsStore({ directory });
const spool = createSpool({ platform, store, join: joinWindows });
const sender = createSender({ platform, url });

await spool.open();
for (let round = 0; round < Number(rounds); round += 1) {
  const ver = `${run}.${round}`;
  await spool.journal([{ t: 0, d: 60, m: 'digits', ver, n: 1, ok: 1 }]);
  // Said only once it is written: whoever hears of it may rely on it.
  writeSync(1, `${ver}\n`);
  if (round % 3 !== 2) continue;
  await spool.seal((dev) => ({
    app: 'stable',
    dev,
    sdk: 'inlay/0.3.0',
    rt: 'node',
    cls: 0,
    consent: 'necessary',
  }));
  const { done, refused } = await sender.send(spool.sealed());
  await spool.acknowledge([...done, ...refused]);
  await sleep(1);
}
for (let tries = 0; tries < 50 && (spool.waiting() > 0 || spool.sealed().length > 0); tries += 1) {
  await spool.seal((dev) => ({
    app: 'stable',
    dev,
    sdk: 'inlay/0.3.0',
    rt: 'node',
    cls: 0,
    consent: 'necessary',
  }));
  const { done, refused } = await sender.send(spool.sealed());
  await spool.acknowledge([...done, ...refused]);
}
await spool.close();
await store.close();
