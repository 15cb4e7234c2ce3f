import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { print } from './report.mjs';

const BENCHES = [
  'overhead',
  'loop-delay',
  'cold-start',
  'verify',
  'codec',
  'quantize',
  'delta',
  'delta-decode',
  'install',
  'size',
  'throughput',
  'swap',
  'poll',
  'memory',
  'scheduler',
  'overload',
  'ingest',
  'browser',
  'guards',
  'fleet',
  'dashboard',
];

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'boolean', default: false } },
});
const names = positionals.length > 0 ? positionals : BENCHES;
const unknown = names.find((name) => !BENCHES.includes(name));
if (unknown !== undefined) {
  console.error(`There is no bench "${unknown}"; choose from ${BENCHES.join(', ')}.`);
  process.exitCode = 2;
} else {
  // What an earlier run has learned would not be there on another machine.
  const cache = mkdtempSync(join(tmpdir(), 'inlay-bench-cache-'));
  process.env.INLAY_CACHE_DIR = cache;
  process.once('exit', () => rmSync(cache, { recursive: true, force: true }));
  for (const name of names) {
    const { run } = await import(`./${name}.mjs`);
    print(await run(), values);
  }
}
