/** What it costs to quantize a large file, each time in a process of its own. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parseModel } from 'inlay/onnx';
import { saveModelFile } from 'inlay/optimize';
import { median } from './measure.mjs';
import { isQuick, row } from './quantize-race.mjs';
import { mlp } from './zoo.mjs';

const ROUNDS = isQuick ? 2 : 3;
const CHILD = fileURLToPath(new URL('quantize-child.mjs', import.meta.url));

export async function costs() {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-quantize-'));
  try {
    const path = join(folder, 'model.onnx');
    const { sizeBytes } = await saveModelFile(path, parseModel(mlp({ width: 1024, layers: 24 }).model));
    const rows = [];
    const megabytes = sizeBytes / 1e6;
    const name = `${Math.round(megabytes)} MB`;
    const runs = async (...args) => {
      const results = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', CHILD, path, ...args]);
        results.push(JSON.parse(stdout));
      }
      return (part) => median(results.map((each) => each[part]));
    };
    for (const technique of isQuick ? ['int8'] : ['int8', 'fp16', 'int4']) {
      const what = `${name} → ${technique}: read, quantized, written`;
      const cold = await runs(technique);
      const warm = await runs(technique, 'warm');
      rows.push(
        row(what, 'peak memory beyond input and output', warm('extraBytes') / 1e6, {
          unit: 'MB',
          target: 10,
        }),
        row(what, 'peak memory of the process', cold('peakBytes') / 1e6, { unit: 'MB' }),
        row(what, 'time, first in a process', cold('ms') / 1000, { unit: 's' }),
        row(what, 'rate of input, first in a process', megabytes / (cold('ms') / 1000), { unit: 'MB/s' }),
      );
    }
    const structure = await runs('structure');
    const more = { unit: 'ms', target: 60 };
    rows.push(row(`${name}: structure from a file`, 'time, first in a process', structure('ms'), more));
    return rows;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
