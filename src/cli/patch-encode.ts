/** Patches that commands make and apply, with progress. */

import { nodePlatform } from '../platform-node.ts';
import { encodePatch } from '../publish/delta/encode.ts';
import { createProgress, type ProgressDisplay } from './progress.ts';
import type { Terminal } from './terminal.ts';

/**
 * Starts to show how far a command has come.
 * @param isSilent nothing is shown, as with `--json`.
 */
export function startProgress(terminal: Terminal, unit: string, isSilent: boolean): ProgressDisplay {
  if (isSilent) return { update: () => {}, stop: () => {} };
  return createProgress({
    terminal,
    unit,
    bar: process.stderr.isTTY ? process.stderr : undefined,
    monotonicMs: nodePlatform().monotonicMs,
  });
}

/** Makes a patch, and shows how many tensors it has come to. */
export function encodeWithProgress(
  base: Uint8Array,
  next: Uint8Array,
  progress: ProgressDisplay,
): Uint8Array<ArrayBuffer> {
  try {
    return encodePatch(base, next, {
      platform: nodePlatform(),
      onProgress: (tensor, tensors) => {
        progress.update({ position: tensor, total: tensors, rows: tensor, skipped: 0 });
      },
    });
  } finally {
    progress.stop();
  }
}
