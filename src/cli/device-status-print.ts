/** Shows what a device has, for people. */

import type { UpdateEvent } from '../update/events.ts';
import { isWithdrawn } from '../update/resolve.ts';
import { slotNames, type Rejected, type Slot, type SlotName, type SlotsState } from '../update/slot.ts';
import type {
  DeviceBlob,
  DeviceChannel,
  DeviceDownload,
  DeviceModel,
  DeviceStatus,
} from './device-status.ts';
import { formatBytes, table } from './terminal.ts';

/**
 * Describes a device in a few tables.
 * @param options - `now` is milliseconds since 1970, `events` how many of the last ones are shown.
 */
export function describeDevice(
  status: DeviceStatus,
  { now, events: count }: { readonly now: number; readonly events: number },
): string {
  const { directory, install, models, channels, downloads, blobs } = status;
  const events = count === 0 ? [] : status.events.slice(-count);
  const parts = [
    `${directory}\ninstall ${install ?? 'not known yet'}`,
    ...models.map((model) => describeModel(model, now)),
    ...(models.length === 0 ? ['No model was loaded by name here yet.'] : []),
    ...channels.map(describeChannel),
    ...(downloads.length > 0 ? [describeDownloads(downloads)] : []),
    describeBlobs(blobs),
    ...(events.length > 0 ? [describeEvents(events)] : []),
  ];
  return parts.join('\n\n');
}

function describeModel({ model, channel, slots, runs }: DeviceModel, now: number): string {
  const title = `${model}, ${channel === undefined ? 'of a server that is not known here' : `channel ${channel}`}`;
  if (slots === undefined) return `${title}\n  its record is damaged; the device begins anew`;
  const rows = slotNames.flatMap((name) => {
    const slot = slots[name];
    return slot ? [slotRow(name, slot, slots, runs, now)] : [];
  });
  const lines = [
    title,
    rows.length > 0
      ? table(['slot', 'version', 'seq', 'size', 'state'], rows)
      : '  nothing has been installed yet',
  ];
  const { plan, rejected, policy } = slots;
  if (rejected.length > 0) lines.push('', describeRejected(rejected, now));
  if (plan !== undefined) {
    const part = plan.isIn ? ', this device takes part' : '';
    const seen = plan.verifiedAt > 0 ? `, confirmed ${timeOf(plan.verifiedAt)}` : '';
    lines.push('', `rollout ${plan.id} to ${plan.bp / 100} %${part}${seen}`);
  }
  const { floorSeq = 0, revoked = [] } = policy ?? {};
  const withdrawn = [
    ...(floorSeq > 0 ? [`those below seq ${floorSeq}`] : []),
    ...(revoked.length > 0 ? [`seq ${revoked.join(', ')}`] : []),
  ];
  if (withdrawn.length > 0) lines.push(`withdrawn releases: ${withdrawn.join(' and ')}`);
  return lines.join('\n');
}

function slotRow(
  name: SlotName,
  { release, file, variant }: Slot,
  { trial, strikes, policy = {} }: SlotsState,
  runs: DeviceModel['runs'],
  now: number,
): readonly string[] {
  const notes: string[] = [];
  if (name === 'trial' && trial !== undefined) {
    const { phase, inferences, errors, since, rules } = trial;
    const servedS = since === undefined ? 0 : Math.max(0, Math.floor((now - since) / 1000));
    notes.push(
      phase === 'staged'
        ? 'waits for its activation'
        : `${inferences} ${inferences === 1 ? 'answer' : 'answers'}, ${rules.minInferences} needed`,
      ...(phase === 'staged' ? [] : [`${errors} failed`, `${servedS} s of service, ${rules.soakS} s needed`]),
    );
  }
  const struck = strikes[file.sha256] ?? 0;
  if (struck > 0) notes.push(`${struck} of ${trial?.rules.strikes ?? 2} strikes`);
  for (const { phase, isAlive, run } of runs.filter(
    (one) => one.slot === name && one.sha256 === file.sha256,
  )) {
    const what = phase === 'loading' ? 'opening' : 'open';
    notes.push(isAlive ? `${what} in process ${run.split('-')[0]}` : `was ${what} when its process ended`);
  }
  if (variant !== undefined) notes.unshift(variant);
  if (isWithdrawn(policy, release)) notes.push('withdrawn');
  return [
    name,
    release.version === '' ? 'of the app' : release.version,
    release.seq === 0 ? '-' : String(release.seq),
    formatBytes(file.length),
    notes.join('; '),
  ];
}

function describeRejected(rejected: readonly Rejected[], now: number): string {
  const rows = rejected.map(({ version, reason, at, until, detail }) => [
    version,
    reason,
    timeOf(at),
    until === null ? 'a retry' : until <= now ? 'now' : timeOf(until),
    shorten(detail),
  ]);
  return table(['rejected', 'reason', 'at (UTC)', 'until', 'detail'], rows);
}

function describeChannel({ channel, roles }: DeviceChannel): string {
  if (roles.length === 0) return `metadata of channel ${channel}: none yet`;
  const rows = roles.map(({ role, version, expires, isExpired }) => [
    role,
    String(version),
    expires === undefined ? 'as the app says' : `${expires}${isExpired ? ' EXPIRED' : ''}`,
  ]);
  return table([`metadata (${channel})`, 'version', 'expires'], rows);
}

function describeDownloads(downloads: readonly DeviceDownload[]): string {
  const rows = downloads.map(({ path, sha256, sizeBytes, storedBytes, openedAt }) => [
    path ?? sha256.slice(0, 12),
    `${formatBytes(storedBytes)} of ${formatBytes(sizeBytes)}`,
    timeOf(openedAt),
  ]);
  return table(['download', 'there', 'opened (UTC)'], rows);
}

function describeBlobs(blobs: readonly DeviceBlob[]): string {
  const size = blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  if (blobs.length === 0) return 'no files';
  const rows = blobs.map(({ path, sha256, sizeBytes, pins }) => [
    path ?? sha256.slice(0, 12),
    formatBytes(sizeBytes),
    pins.length > 0 ? 'needed' : 'may go',
  ]);
  return table([`${blobs.length} files, ${formatBytes(size)}`, 'size', ''], rows);
}

function describeEvents(events: readonly UpdateEvent[]): string {
  const rows = events.map(({ at, model, type, version, slot, reason, detail, ms, bytes }) => [
    timeOf(at),
    model,
    type,
    [version, slot && `(${slot})`].filter((part) => part !== undefined).join(' '),
    [
      reason,
      detail && shorten(detail),
      bytes !== undefined && formatBytes(bytes),
      ms !== undefined && `${ms} ms`,
    ]
      .filter((part) => typeof part === 'string')
      .join(', '),
  ]);
  return table(['at (UTC)', 'model', 'event', 'release', 'what'], rows);
}

function timeOf(ms: number): string {
  // A record may hold any number.
  return Number.isNaN(new Date(ms).getTime())
    ? String(ms)
    : new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
}

function shorten(text: string): string {
  const line = text.replace(/\s+/g, ' ');
  return line.length <= 80 ? line : `${line.slice(0, 79)}…`;
}
