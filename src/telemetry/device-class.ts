/** Twelve classes of devices, so that like is compared with like and nobody is told apart. */

import type { Platform } from '../core/platform.ts';

/** What a device is classed by. Nothing of it leaves the device. */
export interface DeviceTraits {
  /** As {@link Platform.runtime} has it. */
  readonly runtime: Platform['runtime'];
  readonly os?: string | undefined;
  readonly cores?: number | undefined;
  readonly memoryMiB?: number | undefined;
  /** Execution provider: `webgpu`, `wasm`, `cpu` … */
  readonly provider?: string | undefined;
}

interface DeviceClass {
  /** For people. */
  readonly title: string;
  holds(traits: Facts): boolean;
}

/** Traits as the table asks for them. */
interface Facts {
  readonly kind: 'server' | 'edge' | 'page' | 'app' | 'other';
  readonly isPhone: boolean;
  readonly cores: number;
  readonly memoryMiB: number;
  readonly isAccelerated: boolean;
}

const isWeak = ({ cores, memoryMiB }: Facts): boolean => cores <= 4 || memoryMiB <= 4096;

/** The classes by number; the first one that holds from 1 on is a device's, and 0 where none does. */
const CLASSES: readonly DeviceClass[] = [
  { title: 'Other', holds: () => false },
  { title: 'Edge worker', holds: ({ kind }) => kind === 'edge' },
  {
    title: 'Server or desktop app, accelerated',
    holds: ({ kind, isAccelerated }) => kind === 'server' && isAccelerated,
  },
  {
    title: 'Server or desktop app, up to 4 cores',
    holds: ({ kind, cores }) => kind === 'server' && cores <= 4,
  },
  { title: 'Server or desktop app, more cores', holds: ({ kind }) => kind === 'server' },
  {
    title: 'Browser on a phone, accelerated',
    holds: ({ kind, isPhone, isAccelerated }) => kind === 'page' && isPhone && isAccelerated,
  },
  { title: 'Browser on a phone', holds: ({ kind, isPhone }) => kind === 'page' && isPhone },
  {
    title: 'Browser on a computer, accelerated',
    holds: ({ kind, isAccelerated }) => kind === 'page' && isAccelerated,
  },
  { title: 'Browser on a weak computer', holds: (facts) => facts.kind === 'page' && isWeak(facts) },
  { title: 'Browser on a computer', holds: ({ kind }) => kind === 'page' },
  {
    title: 'Mobile app, weak device',
    holds: (facts) => facts.kind === 'app' && !facts.isAccelerated && isWeak(facts),
  },
  { title: 'Mobile app', holds: ({ kind }) => kind === 'app' },
];

/** Class of a device, 0 to 11. */
export function classOf(traits: DeviceTraits): number {
  const facts: Facts = {
    kind: KINDS[traits.runtime] ?? 'other',
    isPhone: traits.runtime === WEB_ON_IOS || PHONES.has(traits.os ?? ''),
    // What is not told is not held against a device.
    cores: traits.cores ?? Infinity,
    memoryMiB: traits.memoryMiB ?? Infinity,
    isAccelerated: traits.provider !== undefined && !PLAIN.has(traits.provider),
  };
  return Math.max(
    0,
    CLASSES.findIndex(({ holds }) => holds(facts)),
  );
}

/** Title of a class for people; an unknown number is `Other`. */
export function titleOfClass(cls: number): string {
  return CLASSES[cls]?.title ?? 'Other';
}

/** Safari does not tell the system otherwise. */
const WEB_ON_IOS = 'web on iOS';
const KINDS: Readonly<Record<string, Facts['kind']>> = {
  node: 'server',
  bun: 'server',
  deno: 'server',
  workerd: 'edge',
  edge: 'edge',
  web: 'page',
  [WEB_ON_IOS]: 'page',
  'react-native': 'app',
};
const PHONES: ReadonlySet<string> = /* @__PURE__ */ new Set(['android', 'ios']);
const PLAIN: ReadonlySet<string> = /* @__PURE__ */ new Set(['cpu', 'wasm', 'xnnpack']);
