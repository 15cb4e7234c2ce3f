import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'vitest';
import { bundleTests, root } from './harness/bundle.ts';
import { parseRecord, RECORD, reportCases, type Played } from './harness/cases.ts';
import { runtimeFor, testsIn, type Runtime } from './harness/process.ts';
import { serve, workerdBuild } from './harness/workerd.ts';
import type { Case } from './harness/vitest.ts';

const START = `
const encoder = new TextEncoder();
export default {
  fetch() {
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    const write = (text) => writer.write(encoder.encode(${JSON.stringify(RECORD)} + text + '\\n'));
    play(files, (result) => write(JSON.stringify(result)))
      .then(() => write(''))
      .finally(() => writer.close());
    return new Response(readable);
  },
};`;

/** Milliseconds that all cases may take. */
const LIMIT_MS = 10 * 60_000;

async function playInWorkerd({ program }: Runtime, files: readonly string[]): Promise<Played> {
  const folder = mkdtempSync(join(tmpdir(), 'inlay-workerd-'));
  try {
    const { options, modules } = workerdBuild(folder);
    await bundleTests(files, START, join(folder, 'main.mjs'), options);
    const served = await serve(program, folder, modules);
    try {
      return await readCases(served.url);
    } catch (error) {
      return { cases: [], fault: `${String(error)}: ${served.output()}` };
    } finally {
      await served.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function readCases(url: string): Promise<Played> {
  const response = await fetch(url, { signal: AbortSignal.timeout(LIMIT_MS) });
  const cases: Case[] = [];
  for (const line of (await response.text()).split('\n')) {
    const parsed = parseRecord(line);
    if (parsed === 'end') return { cases };
    if (parsed !== undefined) cases.push(parsed);
  }
  return { cases, fault: `HTTP ${response.status}, and no end after ${JSON.stringify(cases.at(-1))}.` };
}

const workerd = runtimeFor('workerd');
if (workerd === undefined) it.skip('workerd');
else {
  const cases = ['onnxruntime-web-edge', 'edge-inlay'].map((name) =>
    join(root, 'test/runtimes/cases', `${name}.ts`),
  );
  reportCases(
    `workerd ${workerd.version}`,
    await playInWorkerd(workerd, [...cases, ...testsIn('core')]),
    1000,
  );
}
