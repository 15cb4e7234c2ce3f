/**
 * Make signed releases from code: what `inlay keys`, `inlay publish` and the sync server are built on.
 * @module inlay/publish
 */
export {
  publishRelease,
  type PublishedRelease,
  type PublisherKeys,
  type PublishOptions,
  type ReleaseServer,
  type Tip,
} from './publisher.ts';
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
