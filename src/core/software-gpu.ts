/** GPUs that are none: names that a processor goes by when it plays one. */

/** What WebGPU tells of an adapter. */
export interface AdapterInfo {
  readonly vendor?: string;
  readonly architecture?: string;
  readonly device?: string;
  readonly description?: string;
  readonly isFallbackAdapter?: boolean;
}

/** The part of an adapter that says what it is. */
export interface AdapterLike {
  readonly info?: AdapterInfo;
  /** As browsers had it before it moved into `info`. */
  readonly isFallbackAdapter?: boolean;
}

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|software|basic render|\bwarp\b/i;

/** Tells whether the name of an adapter, or of a WebGL renderer, is that of one that computes in software. */
export function isSoftwareName(name: string): boolean {
  return SOFTWARE.test(name);
}

/** Tells whether an adapter of WebGPU computes in software, as far as it says so. */
export function isSoftwareAdapter(adapter: AdapterLike): boolean {
  return (
    adapter.info?.isFallbackAdapter === true ||
    adapter.isFallbackAdapter === true ||
    isSoftwareName(nameOfAdapter(adapter))
  );
}

/** The words that an adapter has for itself, or `unknown`: browsers leave blank what they do not tell. */
export function nameOfAdapter({ info = {} }: AdapterLike): string {
  const words = [info.vendor, info.architecture, info.device, info.description];
  return words.filter((word) => word !== undefined && word !== '').join(' ') || 'unknown';
}
