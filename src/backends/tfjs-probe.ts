/** Looks at a GPU before TensorFlow.js does, which takes every one that it gets. */

import { isSoftwareAdapter, isSoftwareName, type AdapterLike } from '../core/software-gpu.ts';

/** The part of the WebGPU API that is used. */
interface Gpu {
  requestAdapter(): Promise<AdapterLike | null>;
}

const IN_SOFTWARE = 'computes in software; allow it with allowSoftwareAdapter';

/**
 * Says why a TensorFlow.js backend cannot work here.
 * @returns `undefined` if it is worth a try.
 */
export async function refuseGpu(name: string, allowSoftwareAdapter: boolean): Promise<string | undefined> {
  if (name === 'webgpu') return refuseWebGpu(allowSoftwareAdapter);
  return name === 'webgl' && !allowSoftwareAdapter ? refuseSoftwareWebGl() : undefined;
}

async function refuseWebGpu(allowSoftwareAdapter: boolean): Promise<string | undefined> {
  const { gpu } = (globalThis as { readonly navigator?: { readonly gpu?: Gpu } }).navigator ?? {};
  if (gpu === undefined) return 'there is no WebGPU here';
  const adapter = await gpu.requestAdapter().catch(() => null);
  if (adapter === null) return 'there is no WebGPU adapter';
  return isSoftwareAdapter(adapter) && !allowSoftwareAdapter
    ? `the WebGPU adapter ${IN_SOFTWARE}`
    : undefined;
}

function refuseSoftwareWebGl(): string | undefined {
  if (typeof OffscreenCanvas === 'undefined') return undefined;
  const context = new OffscreenCanvas(1, 1).getContext('webgl2');
  if (context === null) return 'there is no WebGL 2 here';
  const details = context.getExtension('WEBGL_debug_renderer_info');
  const renderer = String(context.getParameter(details?.UNMASKED_RENDERER_WEBGL ?? context.RENDERER));
  context.getExtension('WEBGL_lose_context')?.loseContext();
  return isSoftwareName(renderer) ? `WebGL ${IN_SOFTWARE}` : undefined;
}
