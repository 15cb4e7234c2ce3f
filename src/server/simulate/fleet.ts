/** What simulated devices are: a few bytes each, as most of them do nothing but poll. */

import { createDraws, mixed } from './draws.ts';

/** Devices by number, from 0. */
export interface SimulatedFleet {
  readonly size: number;
  /** Install identifier. */
  idOf(device: number): string;
  /** Class of the device. */
  classOf(device: number): number;
  /** Share of its calls that fail with any version. */
  failuresOf(device: number): number;
  /** Median time of a call, seconds. */
  secondsOf(device: number): number;
  /** Calls per hour. */
  callsOf(device: number): number;
  /** Tells whether a device has no network at a time, milliseconds since 1970. */
  isAway(device: number, at: number): boolean;
  /** Place of its polls in the period, in [0, 1). */
  phaseOf(device: number): number;
  /** Devices in the order of their polls. */
  readonly order: Uint32Array;
}

/** Spread of the hardware, and of how much devices are used, as the sigma of a lognormal. */
const hardware = 0.8;
/** Median time of a call, seconds, and calls per hour. */
const usual = { seconds: 0.03, calls: 240 };
/** Devices that were bad before, and the failures of those and of the others. */
const bad = { share: 0.05, failures: 0.15, others: 0.003 };
/** Devices that are away once a day, and for how long, hours. */
const away = { share: 0.25, fromH: 2, toH: 12 };
/** Devices by class: pages, apps, servers, unequally many. */
const classes: readonly number[] = [9, 9, 9, 7, 7, 8, 6, 5, 10, 10, 11, 4];
const dayMinutes = 1440;

/** Creates the fleet of a seed. */
export function createSimulatedFleet(size: number, seed: number): SimulatedFleet {
  const draws = createDraws(mixed(seed, 0xf1ee7));
  const seconds = new Float32Array(size);
  const calls = new Float32Array(size);
  const phase = new Float32Array(size);
  const isBad = new Uint8Array(size);
  const cls = new Uint8Array(size);
  const awayFrom = new Uint16Array(size);
  const awayFor = new Uint16Array(size);
  for (let i = 0; i < size; i += 1) {
    seconds[i] = usual.seconds * draws.spread(hardware);
    calls[i] = usual.calls * draws.spread(hardware);
    phase[i] = draws.uniform();
    isBad[i] = draws.uniform() < bad.share ? 1 : 0;
    cls[i] = classes[Math.floor(draws.uniform() * classes.length)] ?? 0;
    if (draws.uniform() >= away.share) continue;
    awayFrom[i] = Math.floor(draws.uniform() * dayMinutes);
    awayFor[i] = 60 * (away.fromH + draws.uniform() * (away.toH - away.fromH));
  }
  const order = Uint32Array.from({ length: size }, (_, i) => i).sort(
    (a, b) => (phase[a] ?? 0) - (phase[b] ?? 0) || a - b,
  );
  const hex = (number: number): string => number.toString(16).padStart(8, '0');
  return {
    size,
    idOf: (i) => [0, 1, 2].map((part) => hex(mixed(seed + part, i))).join('') + hex(i),
    classOf: (i) => cls[i] ?? 0,
    failuresOf: (i) => (isBad[i] === 1 ? bad.failures : bad.others),
    secondsOf: (i) => seconds[i] ?? usual.seconds,
    callsOf: (i) => calls[i] ?? usual.calls,
    isAway: (i, at) => {
      const length = awayFor[i] ?? 0;
      if (length === 0) return false;
      const minute = Math.floor(at / 60_000) % dayMinutes;
      return (minute - (awayFrom[i] ?? 0) + dayMinutes) % dayMinutes < length;
    },
    phaseOf: (i) => phase[i] ?? 0,
    order,
  };
}
