#!/usr/bin/env node
/**
 * Finds faces in photographs and draws boxes around them.
 *
 *   node examples/faces/main.mjs MODEL IMAGE… --out DIR [--score 0.7] [--json]
 */
import { performance } from 'node:perf_hooks';
import { createInlay } from 'inlay';
import { parseCommand, UsageError } from './command.mjs';
import { detectFaces } from './detect.mjs';
import { drawBox } from './draw.mjs';
import { readImage, writeImage } from './files.mjs';
import { formatReport } from './report.mjs';

try {
  const { model, images, minScore, json } = parseCommand(process.argv.slice(2));
  const report = await markAll(model, images, minScore);
  console.log(json ? JSON.stringify(report) : formatReport(report));
} catch (error) {
  console.error(error.message);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

async function markAll(path, images, minScore) {
  const inlay = createInlay();
  try {
    const model = await inlay.load(path);
    const report = [];
    for (const image of images) report.push({ ...image, ...(await mark(model, image, minScore)) });
    return report;
  } finally {
    await inlay.close();
  }
}

async function mark(model, { path, out }, minScore) {
  const image = await readImage(path);
  const started = performance.now();
  const faces = await detectFaces(model, image, minScore);
  const tookMs = performance.now() - started;
  for (const face of faces) drawBox(image, face);
  await writeImage(out, image);
  return { width: image.width, height: image.height, faces, tookMs };
}
