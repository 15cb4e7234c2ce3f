/** When a rule may notify. Only ever from an instant to local time, so changes of the clock cannot confuse it. */

import type { Schedule } from './rule.ts';

/** Minutes since the begin of a day, and the day: 1 for Monday to 7 for Sunday. */
interface LocalTime {
  readonly day: number;
  readonly minute: number;
}

/** Tells whether a schedule lets notifications through at a time, milliseconds since 1970. */
export function isOpen({ tz, active, mute }: Schedule, at: number): boolean {
  const local = localTime(tz, at);
  const isIn = (span: Schedule['active'][number]): boolean => covers(span, local);
  return (active.length === 0 || active.some(isIn)) && !mute.some(isIn);
}

function covers({ days, from, to }: Schedule['active'][number], { day, minute }: LocalTime): boolean {
  const begin = minutesOf(from);
  const end = minutesOf(to);
  const yesterday = day === 1 ? 7 : day - 1;
  return begin < end
    ? days.includes(day) && minute >= begin && minute < end
    : (days.includes(day) && minute >= begin) || (days.includes(yesterday) && minute < end);
}

function minutesOf(clock: string): number {
  return Number(clock.slice(0, 2)) * 60 + Number(clock.slice(3));
}

const dayNames = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];

function localTime(tz: string, at: number): LocalTime {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: tz,
    weekday: 'short',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  });
  const parts = format.formatToParts(at);
  const part = (type: Intl.DateTimeFormatPartTypes): string =>
    parts.find((it) => it.type === type)?.value ?? '';
  return {
    day: dayNames.indexOf(part('weekday')) + 1,
    minute: Number(part('hour')) * 60 + Number(part('minute')),
  };
}
