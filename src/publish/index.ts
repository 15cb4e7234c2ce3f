/**
 * Make signed releases from code: what `inlay keys`, `inlay publish` and the sync server are built on.
 * @module inlay/publish
 */
export {
  addRelease,
  createRolloutTargets,
  createRoot,
  createSnapshot,
  createTargets,
  createTimestamp,
  expiresIn,
  listReleases,
  type NewRelease,
  type RootOptions,
} from './release.ts';
export { setRollout } from './rollout.ts';
export { signMetadata } from './sign.ts';
export { generateKeyPair, openSigner, toKeyFile, type KeyFile, type KeyPair, type Signer } from './signer.ts';
