/** What is told to contacts. It is kept in the outbox as JSON, and is what webhooks get. */

import type { DriftRow } from '../api/answers.ts';
import type { Level } from './rule.ts';
import type { Labels } from './signals.ts';

/** One alert in a notification. */
export interface NotifiedAlert {
  readonly fingerprint: string;
  readonly rule: string;
  readonly title: string;
  readonly status: 'firing' | 'resolved';
  /** Its level, or the one that it had. */
  readonly level: Level;
  readonly labels: Labels;
  readonly value: number;
  /** What was seen: one sentence without a full stop. */
  readonly text: string;
  /** Milliseconds since 1970; `endsAt` is 0 while it fires. */
  readonly startsAt: number;
  readonly endsAt: number;
  readonly ackedBy: string | null;
  readonly runbook: string | null;
}

/** Alerts that are told together. */
export interface AlertNotification {
  readonly v: 1;
  /** `test`: somebody wants to know whether the contact works. */
  readonly kind: 'alerts' | 'test';
  readonly at: number;
  /** `resolved` if nothing fires any more. */
  readonly status: 'firing' | 'resolved';
  /** The highest one. */
  readonly level: Level;
  /** Labels that all of them share. */
  readonly labels: Labels;
  readonly alerts: readonly NotifiedAlert[];
  /** Seconds until it is said again at the latest, if it goes on. */
  readonly repeatS: number;
}

/** Something that is done because of one alert. */
export interface ActionNotification {
  readonly v: 1;
  /** `retrain`: data have moved away from what the model was made with. `rollback`: the release does harm. */
  readonly kind: 'retrain' | 'rollback';
  readonly at: number;
  readonly alert: NotifiedAlert;
  readonly model: string;
  readonly version: string;
  /** Features that drift, with figures and shares of bins. */
  readonly features: readonly DriftRow[];
}

/** Anything that is told. */
export type Notification = AlertNotification | ActionNotification;

/** Contact of the outbox that is no contact, but takes rollouts back. */
export const ROLLBACK_CONTACT = '@rollback';

/** Title of an alert for people. */
export function titleOf({ title, rule }: Pick<NotifiedAlert, 'title' | 'rule'>): string {
  return title === '' ? rule : title;
}

/** One line for people: what, how bad, where. */
export function headlineOf(notification: Notification): string {
  if ('alert' in notification) {
    const { kind, model, version } = notification;
    return kind === 'retrain'
      ? `Train ${model} anew: ${version} sees other data than it was made with`
      : `Roll back ${model} ${version}`;
  }
  const { alerts, status, level, kind } = notification;
  if (kind === 'test') return 'Test of a contact';
  const [first] = alerts;
  const word = status === 'resolved' ? 'Resolved' : level.charAt(0).toUpperCase() + level.slice(1);
  const where = labelText(alerts.length === 1 && first ? first.labels : notification.labels);
  const what = first && alerts.length === 1 ? titleOf(first) : `${alerts.length} alerts`;
  return `${word}: ${what}${where === '' ? '' : ` (${where})`}`;
}

/** Alerts of a notification, one after the other; an action has one. */
export function alertsOf(notification: Notification): readonly NotifiedAlert[] {
  return 'alert' in notification ? [notification.alert] : notification.alerts;
}

/** Labels for people: `model digits, version 1.2.0`. */
export function labelText(labels: Labels): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}
