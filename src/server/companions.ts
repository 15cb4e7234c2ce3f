import type { CompanionTarget, Targets } from '../trust/metadata.ts';

/** A file that belongs to a release beside its model. */
export interface Companion extends CompanionTarget {
  /** Target path. */
  readonly path: string;
  readonly sha256: string;
  /** Bytes. */
  readonly length: number;
}

/** Roles that a companion can have. */
const companionRoles: readonly CompanionTarget['role'][] = [
  'manifest',
  'variant',
  'golden',
  'profile',
  'compressed',
  'patch',
];

/** Lists the companions of releases in `targets`. Other targets are left out. */
export function listCompanions(targets: Targets): readonly Companion[] {
  return Object.entries(targets.targets).flatMap(([path, { length, hashes, custom }]) => {
    const { model, seq, version } = custom ?? {};
    const role = companionRoles.find((name) => name === custom?.['role']);
    const sha256 = hashes['sha256'];
    return typeof model === 'string' &&
      typeof seq === 'number' &&
      version === undefined &&
      role !== undefined &&
      sha256 !== undefined
      ? [{ path, sha256, length, seq, model, role }]
      : [];
  });
}
