import { describe, expect, it } from 'vitest';
import { classOf, titleOfClass, type DeviceTraits } from '../../../src/telemetry/device-class.ts';
import { DEVICE_CLASSES } from '../../../src/telemetry/report.ts';

const weak = { cores: 4, memoryMiB: 2048 };
const strong = { cores: 8, memoryMiB: 16_384 };
const devices: readonly [string, DeviceTraits][] = [
  ['Other', { runtime: 'something new' }],
  ['Edge worker', { runtime: 'workerd' }],
  ['Server or desktop app, accelerated', { runtime: 'node', ...strong, provider: 'cuda' }],
  ['Server or desktop app, up to 4 cores', { runtime: 'node', ...weak, provider: 'cpu' }],
  ['Server or desktop app, more cores', { runtime: 'bun', ...strong, provider: 'cpu' }],
  ['Browser on a phone, accelerated', { runtime: 'web on iOS', provider: 'webgpu' }],
  ['Browser on a phone', { runtime: 'web', os: 'android', ...strong, provider: 'wasm' }],
  ['Browser on a computer, accelerated', { runtime: 'web', os: 'macos', ...strong, provider: 'webgpu' }],
  ['Browser on a weak computer', { runtime: 'web', ...weak, provider: 'wasm' }],
  ['Browser on a computer', { runtime: 'web', ...strong, provider: 'wasm' }],
  ['Mobile app, weak device', { runtime: 'react-native', ...weak, provider: 'cpu' }],
  ['Mobile app', { runtime: 'react-native', ...strong, provider: 'coreml' }],
];

describe('classOf', () => {
  it.each(devices)('has %s', (title, traits) => {
    expect(titleOfClass(classOf(traits))).toBe(title);
  });

  it('has as many classes as reports may name, each with a title of its own', () => {
    const titles = devices.map(([title]) => title);
    expect(new Set(devices.map(([, traits]) => classOf(traits))).size).toBe(DEVICE_CLASSES);
    expect(Array.from({ length: DEVICE_CLASSES }, (_, cls) => titleOfClass(cls)).sort()).toEqual(
      titles.sort(),
    );
  });

  it('does not hold against a device what it does not tell', () => {
    expect(titleOfClass(classOf({ runtime: 'web' }))).toBe('Browser on a computer');
    expect(classOf({ runtime: 'toString' })).toBe(0);
    expect(titleOfClass(99)).toBe('Other');
  });
});
