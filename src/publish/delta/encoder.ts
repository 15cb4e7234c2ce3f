import type { Platform } from '../../core/platform.ts';
import { PATCH_CODEC } from '../../update/delta/patcher.ts';
import type { PatchEncoder } from '../patches.ts';
import { encodePatch } from './encode.ts';
import type { UpdateSteps } from './steps.ts';

/** How {@link createDeltaEncoder} works. */
export interface DeltaEncoderOptions {
  readonly platform: Pick<Platform, 'createSha256'>;
  /** Grids that the tensors of the new file were rounded onto; from another base they do no harm. */
  readonly steps?: UpdateSteps | undefined;
}

/** Creates what makes Inlay's own patches (docs/spec/idp.md): the counterpart of `createDeltaPatcher`. */
export function createDeltaEncoder({ platform, steps }: DeltaEncoderOptions): PatchEncoder {
  return {
    codec: PATCH_CODEC,
    encode: (base, next) => encodePatch(base, next, { platform, steps }),
    encodeAlone: async (next) => encodePatch(undefined, next, { platform }),
  };
}
