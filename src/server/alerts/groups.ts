/** Who is told what, and when: routes, escalation, grouping, inhibition, silences, schedules and repeats. */

import type { Contact } from './contact.ts';
import { isOn, levelOf, rankOf, type AlertState, type Rank } from './machine.ts';
import type { AlertNotification, NotifiedAlert } from './notification.ts';
import type { AlertRule, Level } from './rule.ts';
import { isOpen } from './schedule.ts';
import type { Labels } from './signals.ts';

/** Times of Alertmanager's defaults: the first notification of a group waits for others, and so do later changes. */
export const GROUP_WAIT_MS = 30_000;
export const GROUP_INTERVAL_MS = 300_000;
/** An Alertmanager forgets what it is not told again. */
const ALERTMANAGER_REPEAT_MS = 3_600_000;

/** An alert as notifications see it. */
export interface LiveAlert {
  readonly fingerprint: string;
  readonly rule: AlertRule;
  readonly labels: Labels;
  readonly state: AlertState;
  readonly value: number;
  readonly text: string;
  readonly ackedBy: string | null;
  /** Level when it was highest since it began to fire: what is told when it has ended. */
  readonly peak: Rank;
  /** Contacts that have been told because nobody reacted. */
  readonly escalatedTo: readonly string[];
}

/** A silence that is in force. */
export interface Silence {
  readonly matchers: Labels;
}

/** What a contact has been told of one group. */
export interface GroupState {
  /** Since when there is something to tell. */
  readonly since: number;
  /** Last time; 0 for never. */
  readonly toldAt: number;
  /** How often. */
  readonly told: number;
  /** Alerts by fingerprint: their level, and when they began to fire. */
  readonly sent: Readonly<Record<string, { readonly rank: Rank; readonly firedAt: number }>>;
}

/** Groups by contact and labels. */
export type Groups = Readonly<Record<string, GroupState>>;

/** A notification for one contact. */
export interface Outgoing {
  readonly contact: string;
  /** Text that is the same for the same notification only. */
  readonly identity: string;
  readonly body: AlertNotification;
}

/** Finds out what is to be told now. Telling is left to the caller, and so is keeping `groups` for the next time. */
export function tell(
  alerts: readonly LiveAlert[],
  contacts: readonly Contact[],
  silences: readonly Silence[],
  before: Groups,
  now: number,
): { readonly groups: Groups; readonly outgoing: readonly Outgoing[] } {
  const byFingerprint = new Map(alerts.map((alert) => [alert.fingerprint, alert]));
  const quiet = new Set(
    alerts
      .filter((alert) => isMuted(alert, now) || isSilenced(alert, silences) || isInhibited(alert, alerts))
      .map(({ fingerprint }) => fingerprint),
  );
  const groups: Record<string, GroupState> = {};
  const outgoing: Outgoing[] = [];
  for (const contact of contacts) {
    for (const [key, { labels, members }] of groupsOf(contact, alerts, before)) {
      const state = before[key] ?? { since: now, toldAt: 0, told: 0, sent: {} };
      const ended = Object.keys(state.sent).flatMap((fingerprint) => {
        const alert = byFingerprint.get(fingerprint);
        return alert && !isOn(alert.state) && !quiet.has(fingerprint) ? [alert] : [];
      });
      const loud = members.filter(({ fingerprint }) => !quiet.has(fingerprint));
      const sent = settled(state.sent, byFingerprint);
      if (!isDue(contact, state, loud, ended, now)) {
        const isIdle = Object.keys(sent).length === 0 && loud.length === 0;
        if (!isIdle) groups[key] = { ...state, sent };
        continue;
      }
      const told = [...loud, ...ended];
      const endedNow = new Set(ended.map(({ fingerprint }) => fingerprint));
      const kept = Object.entries(sent).filter(([fingerprint]) => !endedNow.has(fingerprint));
      const fresh = loud.map(
        ({ fingerprint, state: { rank, firedAt } }) => [fingerprint, { rank, firedAt }] as const,
      );
      const next = {
        ...state,
        toldAt: now,
        told: state.told + 1,
        sent: Object.fromEntries([...kept, ...fresh]),
      };
      if (Object.keys(next.sent).length > 0) groups[key] = next;
      outgoing.push({
        contact: contact.id,
        identity: [
          key,
          state.since,
          next.told,
          ...told.map((it) =>
            [it.fingerprint, it.state.rank, it.state.firedAt, it.escalatedTo.length].join(':'),
          ),
        ].join('\n'),
        body: notificationOf(contact, labels, told, now),
      });
    }
  }
  return { groups, outgoing };
}

/** Alerts that a contact is to hear of, by group; also groups in which it has heard of some that have ended. */
function groupsOf(
  contact: Contact,
  alerts: readonly LiveAlert[],
  before: Groups,
): ReadonlyMap<string, { readonly labels: Labels; readonly members: readonly LiveAlert[] }> {
  const groups = new Map<string, { readonly labels: Labels; readonly members: LiveAlert[] }>();
  for (const alert of alerts) {
    const labels = Object.fromEntries(
      alert.rule.groupBy.flatMap((name) => {
        const value = Object.hasOwn(alert.labels, name) ? alert.labels[name] : undefined;
        return value === undefined ? [] : [[name, value]];
      }),
    );
    const key = JSON.stringify([contact.id, labels]);
    const isMember = isOn(alert.state) && hears(contact, alert);
    const isKnown = before[key] !== undefined && Object.hasOwn(before[key].sent, alert.fingerprint);
    if (!isMember && !isKnown) continue;
    const group = groups.get(key) ?? { labels, members: [] };
    groups.set(key, group);
    if (isMember) group.members.push(alert);
  }
  return groups;
}

function hears(contact: Contact, { rule, state, escalatedTo }: LiveAlert): boolean {
  const level = levelOf(state.rank);
  if (escalatedTo.includes(contact.id)) return true;
  if (!contact.levels.includes(level)) return false;
  if (!rule.route) return contact.isDefault;
  return rule.route.some(
    (route) => route.contact === contact.id && (route.levels === undefined || route.levels.includes(level)),
  );
}

/** Without alerts that nobody knows any more; lowered ones with their present level, so that the next raise is news. */
function settled(sent: GroupState['sent'], alerts: ReadonlyMap<string, LiveAlert>): GroupState['sent'] {
  return Object.fromEntries(
    Object.entries(sent).flatMap(([fingerprint, { rank, firedAt }]) => {
      const alert = alerts.get(fingerprint);
      if (!alert) return [];
      const isSame = isOn(alert.state) && alert.state.firedAt === firedAt;
      const present = isSame && alert.state.rank < rank ? alert.state.rank : rank;
      return [[fingerprint, { rank: present, firedAt }]];
    }),
  );
}

function isDue(
  contact: Contact,
  { since, toldAt, sent }: GroupState,
  loud: readonly LiveAlert[],
  ended: readonly LiveAlert[],
  now: number,
): boolean {
  const known = (alert: LiveAlert): GroupState['sent'][string] | undefined =>
    Object.hasOwn(sent, alert.fingerprint) ? sent[alert.fingerprint] : undefined;
  const fresh = loud.filter((alert) => known(alert)?.firedAt !== alert.state.firedAt);
  const isRaised = loud.some((alert) => {
    const last = known(alert);
    return last !== undefined && last.firedAt === alert.state.firedAt && alert.state.rank > last.rank;
  });
  const isUrgent = fresh.some(
    ({ state, escalatedTo }) => levelOf(state.rank) === 'emergency' || escalatedTo.includes(contact.id),
  );
  const isNews = fresh.length > 0 || ended.length > 0;
  if (isRaised || isUrgent) return true;
  if (contact.kind === 'alertmanager') {
    return isNews || (loud.length > 0 && now - toldAt >= ALERTMANAGER_REPEAT_MS);
  }
  if (toldAt === 0) return isNews && now - since >= GROUP_WAIT_MS;
  if (isNews) return now - toldAt >= GROUP_INTERVAL_MS;
  const open = loud.filter(({ state }) => state.state === 'firing');
  return open.some(({ rule }) => now - toldAt >= rule.repeatS * 1000);
}

/** Emergencies are told at any time. */
function isMuted({ rule, state }: LiveAlert, now: number): boolean {
  return (
    rule.schedule !== undefined && levelOf(state.rank || 1) !== 'emergency' && !isOpen(rule.schedule, now)
  );
}

function isSilenced({ labels, rule, state }: LiveAlert, silences: readonly Silence[]): boolean {
  const all: Labels = { ...labels, rule: rule.id, ...(state.rank > 0 && { level: levelOf(state.rank) }) };
  return silences.some(({ matchers }) => {
    const wanted = Object.entries(matchers);
    return (
      wanted.length > 0 && wanted.every(([name, value]) => Object.hasOwn(all, name) && all[name] === value)
    );
  });
}

/** Of two that would silence each other, the graver one is told, then the older one: never none. */
function isInhibited(alert: LiveAlert, alerts: readonly LiveAlert[]): boolean {
  if (!isOn(alert.state)) return false;
  return alert.rule.inhibitedBy.some(({ level, same, rule }) =>
    alerts.some(
      (other) =>
        isOn(other.state) &&
        other.fingerprint !== alert.fingerprint &&
        (rule === undefined || other.rule.id === rule) &&
        other.state.rank >= rankOf(level) &&
        isBefore(other, alert) &&
        same.every((name) => other.labels[name] !== undefined && other.labels[name] === alert.labels[name]),
    ),
  );
}

function isBefore(a: LiveAlert, b: LiveAlert): boolean {
  if (a.state.rank !== b.state.rank) return a.state.rank > b.state.rank;
  if (a.state.firedAt !== b.state.firedAt) return a.state.firedAt < b.state.firedAt;
  return a.fingerprint < b.fingerprint;
}

/** Writes an alert for a notification. */
export function toNotified(alert: LiveAlert, now: number): NotifiedAlert {
  const { fingerprint, rule, labels, state, value, text, ackedBy, peak } = alert;
  return {
    fingerprint,
    rule: rule.id,
    title: rule.title,
    status: isOn(state) ? 'firing' : 'resolved',
    level: levelOf(isOn(state) ? state.rank : peak),
    labels,
    value,
    text,
    startsAt: state.firedAt,
    endsAt: isOn(state) ? 0 : now,
    ackedBy,
    runbook: rule.runbook ?? null,
  };
}

function notificationOf(
  contact: Contact,
  labels: Labels,
  alerts: readonly LiveAlert[],
  now: number,
): AlertNotification {
  const notified = alerts.map((alert) => toNotified(alert, now));
  const firing = notified.filter(({ status }) => status === 'firing');
  const levels = (firing.length > 0 ? firing : notified).map(({ level }) => rankOf(level));
  const level: Level = levelOf(Math.max(...levels) as Rank);
  const repeatS = Math.min(...alerts.map(({ rule }) => rule.repeatS));
  return {
    v: 1,
    kind: 'alerts',
    at: now,
    status: firing.length > 0 ? 'firing' : 'resolved',
    level,
    labels,
    alerts: notified,
    repeatS: contact.kind === 'alertmanager' ? ALERTMANAGER_REPEAT_MS / 1000 : repeatS,
  };
}
