import { Asset } from 'expo-asset';
import * as crypto from 'expo-crypto';
import * as files from 'expo-file-system';
import { createInlay, type Inlay, type Model, type SyncOptions } from 'inlay';
import { AppState } from 'react-native';
import { SIDE, type Sheet } from './brush';

/**
 * Where new versions come from: `sync: { url, root }` of a sync server, `root` being the text of the `root.json` that
 * `npx inlay keys init` wrote. Without it the model that came with the app is used.
 */
const server: { readonly sync?: SyncOptions } = {};

/** One Inlay for the app; nothing is loaded before the first model. */
export const inlay: Inlay = createInlay({ files, crypto, appState: AppState, ...server });

/** Loads the model: the version that the server rolled out to this device, or the one in the app. */
export async function loadDigits(): Promise<Model> {
  if (server.sync) return inlay.load({ name: 'digits' });
  const [asset] = await Asset.loadAsync(require('./assets/digits.onnx'));
  if (!asset?.localUri) throw new Error('The model is missing in the app: run `npm run model` first.');
  return inlay.load(asset.localUri);
}

/** What the model sees in a sheet. */
export interface Reading {
  readonly digit: number;
  /** Share of the model's belief, in [0, 1]. */
  readonly certainty: number;
  readonly version: string | undefined;
  /** Milliseconds from asking to the answer. */
  readonly tookMs: number;
}

/** Reads a digit. */
export async function readDigit(model: Model, sheet: Sheet): Promise<Reading> {
  const started = performance.now();
  const { logits } = await model.run({ image: sheet });
  const tookMs = performance.now() - started;
  const scores = Array.from(logits?.data as Float32Array, (logit) => Math.exp(logit));
  const total = scores.reduce((sum, score) => sum + score, 0);
  const digit = scores.indexOf(Math.max(...scores));
  return { digit, certainty: (scores[digit] ?? 0) / total, version: model.version, tookMs };
}

/** Pixels with ink, for the screen. */
export function inkOf(sheet: Sheet): readonly { readonly at: number; readonly ink: number }[] {
  return Array.from({ length: SIDE * SIDE }, (_, at) => ({ at, ink: sheet[at] ?? 0 })).filter(
    ({ ink }) => ink > 0,
  );
}
