import { parseArgs } from 'node:util';
import { print } from './report.mjs';

const BENCHES = ['overhead', 'loop-delay', 'cold-start', 'size'];

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
  for (const name of names) {
    const { run } = await import(`./${name}.mjs`);
    print(await run(), values);
  }
}
