#!/usr/bin/env node
/**
 * Finds speech in a recording.
 *
 *   node examples/speech/main.mjs WAV MODEL [--threshold 0.5] [--json]
 */
import { readFile } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { createInlay } from 'inlay';
import { decodeWav } from './audio.mjs';
import { parseCommand, UsageError } from './command.mjs';
import { formatReport } from './report.mjs';
import { findSegments } from './segments.mjs';
import { createVad, SAMPLE_RATE, WINDOW } from './vad.mjs';

try {
  const { wav, model, threshold, json } = parseCommand(process.argv.slice(2));
  const report = await listen(await readRecording(wav), model, threshold);
  console.log(json ? JSON.stringify(report) : formatReport(report));
} catch (error) {
  console.error(error.message);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

async function readRecording(path) {
  const bytes = await readFile(path).catch((error) => {
    throw new Error(`The recording ${path} cannot be read (${error.code}).`, { cause: error });
  });
  const samples = decodeWav(bytes, SAMPLE_RATE);
  if (samples === undefined) throw new Error(`${path} is not a WAV file that can be decoded.`);
  if (samples.length === 0) throw new Error(`The recording ${path} is empty.`);
  return samples;
}

async function listen(samples, path, threshold) {
  // The network is so small that the way to a GPU would take longer than the run.
  const inlay = createInlay({ device: 'cpu' });
  try {
    const vad = createVad(await inlay.load(path));
    const started = performance.now();
    const probabilities = [...(await vad.process(samples)), ...(await vad.finish())];
    const tookMs = performance.now() - started;
    const durationMs = (samples.length * 1000) / SAMPLE_RATE;
    const windowMs = (WINDOW * 1000) / SAMPLE_RATE;
    const segments = findSegments(probabilities, { windowMs, durationMs, threshold });
    const speechMs = segments.reduce((sum, { start, end }) => sum + end - start, 0);
    return { segments, speechMs, durationMs, windows: probabilities.length, tookMs };
  } finally {
    await inlay.close();
  }
}
