/**
 * Plays a rollout through with a simulated fleet: virtual time, made-up devices and calls, and for everything else the code
 * that devices and servers run. The same options give the same result.
 */

import { setImmediate } from 'node:timers/promises';
import type { ResolvedPlan } from '../../update/resolve.ts';
import { readReport } from '../../telemetry/report-reader.ts';
import type { Report } from '../../telemetry/report.ts';
import type { Sealed } from '../../telemetry/spool-record.ts';
import { armLabel, decide } from '../../update/decide.ts';
import type { SlotsState } from '../../update/slot.ts';
import type { GuardEvent } from '../guards/events.ts';
import type { ProgrammeInput } from '../guards/read-programme.ts';
import { createAgenda, type Event } from './agenda.ts';
import { createMeasuredDevice, installOf, slotsOf, type DeviceParts, type MeasuredDevice } from './device.ts';
import { createDraws, mixed } from './draws.ts';
import { createSimulatedFleet } from './fleet.ts';
import type { Regression } from './regression.ts';
import {
  CANDIDATE_VERSION,
  CHANNEL,
  MODEL,
  openSimulatedServer,
  type SimulatedServer,
} from './sync-server.ts';
import { createVirtualTime } from './virtual-time.ts';

/** What is simulated. */
export interface SimulationOptions {
  /** Devices, 100 to 2,000,000. */
  readonly devices: number;
  /** What is wrong with the release. Default: nothing, it is as good as the one before. */
  readonly regression?: Regression;
  readonly programme: ProgrammeInput;
  /** Seconds between two polls of a device. Default 3600. */
  readonly pollS?: number;
  /** Seconds between two reports of a device. Default 900. */
  readonly reportS?: number;
  /** Hours after which the simulation ends whatever has come of the rollout. Default 24. */
  readonly hours?: number;
  /** Default 1. */
  readonly seed?: number;
  /** Path of a SQLite file or URL of PostgreSQL for the server. Default: memory. */
  readonly database?: string;
  /** Hours at which the server's process dies and another one takes over; needs a database. */
  readonly restartsAtH?: readonly number[];
  /** Hears how far it is, once per virtual hour at least. */
  readonly onProgress?: (progress: SimulationProgress) => void;
}

/** How far a simulation is. */
export interface SimulationProgress {
  readonly hours: number;
  /** Devices that have ever begun with the release, and reports so far. */
  readonly exposed: number;
  readonly reports: number;
}

/** What became of a rollout. */
export interface SimulationResult {
  /** `halted`: a guard stopped it. `completed`: everybody has it. `held`: people are asked. `running`: time was over. */
  readonly outcome: 'halted' | 'completed' | 'held' | 'running';
  /** What decided, and its sentence. */
  readonly by: string;
  readonly text: string;
  /** Stage at the end, from 0. */
  readonly stage: number;
  /** Hours from the start to that. */
  readonly hours: number;
  /** Devices that had begun with the release by then. */
  readonly exposed: number;
  /** Devices that had ever begun with it, and hours from the halt until the last one that is connected had left it. */
  readonly exposedInAll: number;
  readonly leftAfterH: number | null;
  readonly polls: number;
  readonly reports: number;
  /** Looks of the guards that were logged, and those of them that do not follow from what was seen. */
  readonly looks: number;
  readonly brokenLooks: number;
}

/** Step of the virtual time, milliseconds: as often as the guards look. */
const stepMs = 60_000;
/** 2026-03-01T12:00:00Z */
const startMs = 1_772_366_400_000;
const hourMs = 3_600_000;
/** Reports of one transaction. */
const parcel = 500;
/** Share of acknowledgements that get lost, so that devices send the same reports again. */
const lostAnswers = 0.01;

/** Simulates a rollout. @throws what the server throws for a programme that cannot be carried out. */
export async function simulateRollout(options: SimulationOptions): Promise<SimulationResult> {
  const { devices, regression, programme, onProgress } = options;
  const { pollS = 3600, reportS = 900, hours = 24, seed = 1, database = ':memory:' } = options;
  const time = createVirtualTime(startMs, mixed(seed, 1));
  const { platform } = time;
  const draws = createDraws(mixed(seed, 2));
  const fleet = createSimulatedFleet(devices, seed);
  const agenda = createAgenda(stepMs);
  const events: GuardEvent[] = [];
  const failures: unknown[] = [];
  const restarts = [...(options.restartsAtH ?? [])];
  let server: SimulatedServer = await openSimulatedServer({
    platform,
    target: database,
    onEvent: (event) => events.push(event),
    onError: (error) => failures.push(error),
  });

  const measured = new Map<number, MeasuredDevice>();
  /** Slots of devices that run something else than what everybody runs, or remember more. */
  const remembered = new Map<number, SlotsState>();
  const wasExposed = new Uint8Array(devices);
  const hasCandidate = new Uint8Array(devices);
  /** Number of the plan that a device has heard of. */
  const heard = new Uint16Array(devices);
  let exposed = 0;
  let polls = 0;
  let reports = 0;
  let outbox: { readonly device: MeasuredDevice; readonly sealed: Sealed }[] = [];
  let plan: ResolvedPlan = await server.plan();
  let planNumber = 0;

  const parts: DeviceParts = {
    platform,
    fleet,
    seed: mixed(seed, 3),
    regression,
    plan: (device, what, at) => {
      agenda.add({ device, what, at });
    },
    send: (device, sealed) => {
      for (const one of sealed) outbox.push({ device, sealed: one });
    },
    moved: (device, isIn) => {
      if (hasCandidate[device] === (isIn ? 1 : 0)) return;
      hasCandidate[device] = isIn ? 1 : 0;
      if (!isIn || wasExposed[device] === 1) return;
      wasExposed[device] = 1;
      exposed += 1;
    },
  };
  const usualSlots = slotsOf(plan.cand);

  /** What a device decides that has just polled, or whose turn has come. */
  const follow = (number: number, isNew: boolean): void => {
    const device = measured.get(number);
    if (device) {
      device.follow(plan, isNew);
      return;
    }
    const slots = remembered.get(number) ?? usualSlots;
    const found = decide(plan, installOf(fleet, number), platform.now(), slots);
    const isIdle = found.kind === 'stay' && (armLabel(found) === undefined || plan.state !== 'ramp');
    if (isIdle) {
      if (found.dueAt !== undefined) agenda.add({ at: found.dueAt, device: number, what: 'decide' });
      return;
    }
    const created = createMeasuredDevice(parts, number, slots);
    measured.set(number, created);
    created.follow(plan, isNew);
  };

  const handle = ({ device: number, what }: Event): void => {
    if (what === 'decide') {
      follow(number, false);
      return;
    }
    const device = measured.get(number);
    if (!device) return;
    if (what === 'fetched') device.fetched(fleet.isAway(number, platform.now()) ? undefined : plan);
    else device[what]();
    if (what !== 'report' || !device.isAtRest()) return;
    measured.delete(number);
    remembered.set(number, device.slots());
  };

  /** Takes what devices have sent to the database. */
  const deliver = async (): Promise<void> => {
    const sent = outbox;
    outbox = [];
    for (let i = 0; i < sent.length; i += parcel) {
      const piece = sent.slice(i, i + parcel);
      const call = server.ingest.take(piece.map(({ sealed }) => reportOf(sealed)));
      await server.ingest.flush();
      const { done, refused } = await call;
      reports += done.length;
      if (refused[0]) throw new Error(`The server refused a report: ${refused[0].code}.`);
      for (const { device, sealed } of piece)
        if (draws.uniform() >= lostAnswers) device.acknowledge([sealed]);
    }
  };

  /** Whether no device that has a network runs the release. */
  const hasLeft = (): boolean =>
    !hasCandidate.some((has, number) => has === 1 && !fleet.isAway(number, platform.now()));

  const pollMs = pollS * 1000;
  let round = 0;
  let cursor = 0;
  /** When the device polls that is next to poll. */
  const nextPollAt = (): number =>
    startMs + round * pollMs + Math.floor(fleet.phaseOf(fleet.order[cursor] ?? 0) * pollMs);
  const pollOnce = (): void => {
    const number = fleet.order[cursor] ?? 0;
    cursor += 1;
    if (cursor >= devices) {
      cursor = 0;
      round += 1;
    }
    if (fleet.isAway(number, platform.now())) return;
    polls += 1;
    if (heard[number] === planNumber) return;
    heard[number] = planNumber;
    follow(number, true);
  };

  /** What happens until a time, in order. */
  const live = (until: number): void => {
    const due = agenda.take(until);
    let at = 0;
    for (;;) {
      const event = due[at];
      const pollAt = nextPollAt();
      if (event && event.at <= pollAt) {
        time.advance(event.at);
        handle(event);
        at += 1;
      } else if (pollAt < until) {
        time.advance(pollAt);
        pollOnce();
      } else if (!event) break;
    }
    time.advance(until);
  };

  try {
    const begun = await server.guards.start(
      { channel: CHANNEL, model: MODEL, version: CANDIDATE_VERSION, programme, reason: 'Simulation.' },
      'simulation',
    );
    const { bp } = await server.plan();
    const wishes = { pollS, reportS, percent: bp / 100, reason: 'Simulation.' };
    await server.catalog.setRollout(
      { channel: CHANNEL, model: MODEL, version: CANDIDATE_VERSION, ...wishes },
      'simulation',
    );
    plan = await server.plan();
    planNumber += 1;
    let end: Ending | undefined;
    let leftAfterH: number | null = null;
    const signal = new AbortController().signal;
    for (let until = startMs + stepMs; until <= startMs + hours * hourMs; until += stepMs) {
      live(until);
      await deliver();
      // The driver of SQLite gives memory back between turns of the event loop only.
      await setImmediate();
      if ((restarts[0] ?? Infinity) * hourMs <= until - startMs) {
        restarts.shift();
        server = await server.restart();
      }
      if (!end) {
        await server.guards.job.run(until, signal);
        if (failures.length > 0) throw failures[0];
        const now = await server.plan();
        if (now !== plan) {
          plan = now;
          planNumber += 1;
        }
        end = endingOf(events, (until - startMs) / hourMs, exposed);
      }
      if ((until - startMs) % hourMs === 0)
        onProgress?.({ hours: (until - startMs) / hourMs, exposed, reports });
      if (end && end.outcome !== 'halted') break;
      if (end && hasLeft()) {
        leftAfterH = (until - startMs) / hourMs - end.hours;
        break;
      }
    }
    const stage = plan.stage;
    let looks = 0;
    let brokenLooks = 0;
    for (let at = 0; at <= stage; at += 1) {
      const verified = await server.guards.verify(begun.plan.id, at);
      looks += verified.looks;
      brokenLooks += verified.broken.length;
    }
    const rest = { stage, exposedInAll: exposed, leftAfterH, polls, reports, looks, brokenLooks };
    const [running] = await server.guards.evidence(CHANNEL, MODEL);
    const unended = { outcome: 'running', by: 'time', text: running?.reason ?? '', hours, exposed } as const;
    return { ...(end ?? unended), ...rest };
  } finally {
    await server.close();
  }
}

type Ending = Pick<SimulationResult, 'outcome' | 'by' | 'text' | 'hours' | 'exposed'>;

/** How a programme has ended, as far as it has. */
function endingOf(events: readonly GuardEvent[], hours: number, exposed: number): Ending | undefined {
  const outcomes = { failed: 'halted', ended: 'completed', held: 'held' } as const;
  for (const { kind, by, text } of events) {
    if (kind === 'failed' || kind === 'ended' || kind === 'held')
      return { outcome: outcomes[kind], by, text, hours, exposed };
  }
  return undefined;
}

/** Reads a report as the server does. */
function reportOf({ text }: Sealed): Report {
  const { report, problem } = readReport(JSON.parse(text));
  if (report) return report;
  throw new Error(`A device has sealed a report that is none: ${problem}.`);
}
