import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, cpSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { onnxruntimeReactNative } from '../../src/backends/onnxruntime-react-native.ts';
import { createInlay } from '../../src/react-native.ts';
import { fakeExpo, removeAll } from './react-native-files.ts';
import { fakeLibrary } from './react-native-library.ts';

interface Point {
  readonly x: number;
  readonly y: number;
}

// The example has a configuration of its own, with other rules for modules.
const { blankSheet, drawLine, SIDE } = (await import(
  new URL('../../examples/expo/brush.ts', import.meta.url).href
)) as {
  readonly SIDE: number;
  blankSheet(): Float32Array;
  drawLine(sheet: Float32Array, from: Point, to: Point): Float32Array;
};
const root = fileURLToPath(new URL('../..', import.meta.url));
const tsc = join(root, 'node_modules/typescript/bin/tsc');

describe('the example for Expo', () => {
  it('fits the types of the modules that it gives to createInlay', async () => {
    const checked = promisify(execFile)(process.execPath, [tsc, '-p', join(root, 'test/types/expo')]).then(
      () => '',
      ({ stdout }: { stdout: string }) => stdout,
    );
    expect(await checked).toBe('');
  });

  it('names the class that Android has to register', () => {
    const require = createRequire(import.meta.url);
    const config = require(join(root, 'examples/expo/react-native.config.js')) as {
      dependencies: Record<string, { platforms: { android: Record<string, string> } }>;
    };
    const { android } = config.dependencies['onnxruntime-react-native']?.platforms ?? {};
    expect(android?.['packageImportPath']).toMatch(/^import [\w.]+\.OnnxruntimePackage;$/);
    expect(android?.['packageInstance']).toBe('new OnnxruntimePackage()');
  });

  it('draws lines of full ink in their middle, within the sheet', () => {
    const sheet = drawLine(blankSheet(), { x: 0.5, y: -1 }, { x: 0.5, y: 2 });
    const row = [...sheet.subarray(14 * SIDE, 15 * SIDE)];
    expect(row[13]).toBe(1);
    expect(row[14]).toBe(1);
    expect(row.filter((ink) => ink > 0)).toHaveLength(4);
    expect(Math.max(...sheet)).toBe(1);
    expect(Math.min(...sheet)).toBe(0);
    const blank = blankSheet();
    drawLine(blank, { x: 0, y: 0 }, { x: 1, y: 1 });
    expect(blank).toEqual(blankSheet());
  });

  const strokes: readonly [number, readonly (readonly [number, number])[]][] = [
    [
      1,
      [
        [0.5, 0.2],
        [0.5, 0.8],
      ],
    ],
    [
      7,
      [
        [0.33, 0.22],
        [0.68, 0.21],
        [0.48, 0.8],
      ],
    ],
    [
      0,
      [
        [0.5, 0.2],
        [0.34, 0.35],
        [0.33, 0.6],
        [0.5, 0.8],
        [0.66, 0.62],
        [0.67, 0.36],
        [0.5, 0.2],
      ],
    ],
  ];
  it.each(strokes)('writes a %i that the model reads', async (digit, points) => {
    const directory = mkdtempSync(join(tmpdir(), 'inlay-expo-'));
    try {
      mkdirSync(join(directory, 'Documents'));
      cpSync(join(root, 'examples/digits/digits-1.0.0.onnx'), join(directory, 'Documents/digits.onnx'));
      const backend = onnxruntimeReactNative({ ort: fakeLibrary(['cpu']).ort });
      const inlay = createInlay({ files: fakeExpo(directory), backends: [backend] });
      const model = await inlay.load('digits.onnx');
      const places = points.map(([x, y]): Point => ({ x, y }));
      const sheet = places
        .slice(1)
        .reduce((drawn, to, i) => drawLine(drawn, places[i] ?? to, to), blankSheet());
      const { logits } = await model.run({ image: sheet });
      const scores = [...(logits?.data as Float32Array)];
      expect(scores.indexOf(Math.max(...scores))).toBe(digit);
      await inlay.close();
      await backend.close();
    } finally {
      removeAll(directory);
    }
  });
});
