import { describe, expect, it } from 'vitest';
import { isSoftwareAdapter, isSoftwareName, nameOfAdapter } from '../../src/core/software-gpu.ts';

describe('a GPU that computes in software', () => {
  it('is known by the names that WebGL and WebGPU give it', () => {
    for (const name of [
      'ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device (Subzero) (0x0000C0DE)), SwiftShader driver)',
      'Mesa llvmpipe (LLVM 15.0.7, 256 bits)',
      'mesa lavapipe',
      'Gallium 0.4 on softpipe',
      'Apple Software Renderer',
      'ANGLE (Microsoft, Microsoft Basic Render Driver Direct3D11 vs_5_0 ps_5_0)',
      'microsoft warp',
    ]) {
      expect(isSoftwareName(name), name).toBe(true);
    }
    for (const name of ['nvidia hopper', 'ANGLE (Intel, Mesa Intel(R) UHD Graphics)', 'apple metal-3']) {
      expect(isSoftwareName(name), name).toBe(false);
    }
  });

  it('is known by any of its words, and by its own account', () => {
    expect(isSoftwareAdapter({ info: { vendor: 'mesa', description: 'llvmpipe (LLVM 15)' } })).toBe(true);
    expect(isSoftwareAdapter({ info: { vendor: 'x', isFallbackAdapter: true } })).toBe(true);
    expect(isSoftwareAdapter({ isFallbackAdapter: true })).toBe(true);
    expect(isSoftwareAdapter({ info: { vendor: 'nvidia', isFallbackAdapter: false } })).toBe(false);
    expect(isSoftwareAdapter({})).toBe(false);
  });

  it('is named by what it tells', () => {
    expect(nameOfAdapter({ info: { vendor: 'nvidia', architecture: '', device: 'h200' } })).toBe(
      'nvidia h200',
    );
    expect(nameOfAdapter({ info: { vendor: '' } })).toBe('unknown');
    expect(nameOfAdapter({})).toBe('unknown');
  });
});
