import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readContact, type Contact } from '../../src/server/alerts/contact.ts';
import { defaultRules } from '../../src/server/alerts/default-rules.ts';
import {
  GROUP_INTERVAL_MS,
  GROUP_WAIT_MS,
  tell,
  type Groups,
  type LiveAlert,
} from '../../src/server/alerts/groups.ts';
import {
  EXPIRY_MS,
  inactive,
  isOn,
  step,
  type AlertState,
  type Rank,
  type Sight,
} from '../../src/server/alerts/machine.ts';
import { readRule } from '../../src/server/alerts/rule-reader.ts';
import type { AlertRule, AlertRuleDraft } from '../../src/server/alerts/rule.ts';
import { isOpen } from '../../src/server/alerts/schedule.ts';

const minute = 60_000;
const delays = { forMs: 2 * minute, clearMs: 3 * minute };

/** Steps a minute apart, one for each sight; what happened in each. */
function play(sights: readonly (Rank | [Rank, Rank] | undefined)[], of = delays) {
  let state = inactive;
  return sights.map((one, i) => {
    const sight: Sight | undefined =
      one === undefined
        ? undefined
        : typeof one === 'number'
          ? { rank: one, kept: one }
          : { rank: one[0], kept: one[1] };
    const { after, happened } = step(state, sight, of, (i + 1) * minute);
    state = after;
    return happened ?? `${after.state}${after.rank}`;
  });
}

describe('an alert', () => {
  it('fires when a level has held for as long as the rule says', () => {
    expect(play([1, 1, 1, 1])).toEqual(['pending', 'pending0', 'firing', 'firing1']);
    expect(play([1, 1, 0, 1, 1, 1])).toEqual([
      'pending',
      'pending0',
      'cancelled',
      'pending',
      'pending0',
      'firing',
    ]);
    expect(play([1], { forMs: 0, clearMs: 0 })).toEqual(['firing']);
  });

  it('fires at the level that has held for long enough, and is raised when the next one has', () => {
    expect(play([1, 2, 3, 3, 3])).toEqual(['pending', 'pending0', 'firing', 'raised', 'raised']);
  });

  it('ends when it has been clear for long enough, and not between the thresholds', () => {
    expect(play([1, 1, 1, [0, 1], [0, 1], 0, 0, 0, 0])).toEqual([
      'pending',
      'pending0',
      'firing',
      'firing1',
      'firing1',
      'firing1',
      'firing1',
      'firing1',
      'resolved',
    ]);
    expect(play([1, 1, 1, 0, 0, 1, 0, 0, 0]).at(-1)).toBe('firing1');
  });

  it('is lowered without ending', () => {
    expect(play([2, 2, 2, 1, 1, 1, 1])).toEqual([
      'pending',
      'pending0',
      'firing',
      'firing2',
      'firing2',
      'firing2',
      'lowered',
    ]);
  });

  it('neither begins nor ends without data, until a day has passed', () => {
    expect(play([1, 1, undefined, 1, 1])).toEqual([
      'pending',
      'pending0',
      'cancelled',
      'pending',
      'pending0',
    ]);
    const firing = step(
      { ...inactive, heldSince: [1, 0, 0] },
      { rank: 1, kept: 1 },
      delays,
      10 * minute,
    ).after;
    const later = (ms: number) => step(firing, undefined, delays, 10 * minute + ms);
    expect(later(EXPIRY_MS - 1)).toMatchObject({ after: { state: 'firing' }, happened: undefined });
    expect(later(EXPIRY_MS)).toMatchObject({ after: { state: 'resolved' }, happened: 'expired' });
  });

  it('is not clear while nobody knows', () => {
    expect(play([1, 1, 1, 0, undefined, 0, 0, 0, 0]).slice(-2)).toEqual(['firing1', 'resolved']);
  });

  it('keeps its acknowledgement until it ends or gets worse', () => {
    const acked: AlertState = {
      ...inactive,
      state: 'acked',
      rank: 1,
      heldSince: [1, 0, 0],
      firedAt: 1,
      seenAt: 1,
    };
    const same = step(acked, { rank: 1, kept: 1 }, delays, minute).after;
    expect(same.state).toBe('acked');
    const worse = step(same, { rank: 2, kept: 2 }, { forMs: 0, clearMs: 0 }, 2 * minute);
    expect(worse).toMatchObject({ after: { state: 'firing', rank: 2 }, happened: 'raised' });
    const over = step(same, { rank: 0, kept: 0 }, { forMs: 0, clearMs: 0 }, 2 * minute);
    expect(over).toMatchObject({ after: { state: 'resolved' }, happened: 'resolved' });
  });

  it('obeys its rules whatever it sees (model)', () => {
    const sight = fc.option(
      fc
        .tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 3 }))
        .map(([a, b]): Sight => ({ rank: Math.min(a, b) as Rank, kept: Math.max(a, b) as Rank })),
      { nil: undefined },
    );
    const ack = fc.constant('ack' as const);
    fc.assert(
      fc.property(fc.array(fc.oneof({ weight: 9, arbitrary: sight }, ack), { maxLength: 60 }), (inputs) => {
        let state = inactive;
        let now = 0;
        const history: (Sight | undefined)[] = [];
        for (const input of inputs) {
          if (input === 'ack') {
            if (state.state === 'firing') state = { ...state, state: 'acked' };
            continue;
          }
          now += minute;
          history.push(input);
          const { after, happened } = step(state, input, delays, now);
          expect(after.rank > 0).toBe(isOn(after));
          if (happened === 'firing' || happened === 'raised') {
            const recent = history.slice(-3);
            expect(recent).toHaveLength(3);
            expect(recent.every((one) => one !== undefined && one.rank >= after.rank)).toBe(true);
            expect(after.state).toBe('firing');
          }
          if (happened === 'resolved' || happened === 'lowered') {
            const recent = history.slice(-4);
            expect(recent.every((one) => one !== undefined && one.kept < state.rank)).toBe(true);
          }
          if (happened === undefined) expect(after.rank).toBe(state.rank);
          if (state.state === 'acked' && happened === undefined) expect(after.state).toBe('acked');
          state = after;
        }
      }),
      { numRuns: 400 },
    );
  });
});

describe('a schedule', () => {
  const nights = {
    tz: 'Europe/Berlin',
    active: [],
    mute: [{ days: [1, 2, 3, 4, 5, 6, 7], from: '22:00', to: '06:00' }],
  };
  const at = (iso: string): number => Date.parse(iso);

  it('mutes by local time, over midnight', () => {
    expect(isOpen(nights, at('2026-01-15T20:59:00Z'))).toBe(true);
    expect(isOpen(nights, at('2026-01-15T21:00:00Z'))).toBe(false);
    expect(isOpen(nights, at('2026-01-16T04:59:00Z'))).toBe(false);
    expect(isOpen(nights, at('2026-01-16T05:00:00Z'))).toBe(true);
  });

  it('follows the change of the clock', () => {
    expect(isOpen(nights, at('2026-07-15T20:00:00Z'))).toBe(false);
    expect(isOpen(nights, at('2026-03-29T03:59:00Z'))).toBe(false);
    expect(isOpen(nights, at('2026-03-29T04:00:00Z'))).toBe(true);
    const gap = { tz: 'Europe/Berlin', active: [{ days: [7], from: '02:00', to: '03:00' }], mute: [] };
    expect(isOpen(gap, at('2026-03-29T01:00:00Z'))).toBe(false);
    // This hour is there twice.
    expect(isOpen(gap, at('2026-10-25T00:30:00Z'))).toBe(true);
    expect(isOpen(gap, at('2026-10-25T01:30:00Z'))).toBe(true);
    expect(isOpen(gap, at('2026-10-25T02:30:00Z'))).toBe(false);
  });

  it('counts a span to the day on which it begins', () => {
    const friday = { tz: 'UTC', active: [{ days: [5], from: '20:00', to: '04:00' }], mute: [] };
    expect(isOpen(friday, at('2026-01-17T03:00:00Z'))).toBe(true);
    expect(isOpen(friday, at('2026-01-16T03:00:00Z'))).toBe(false);
  });
});

describe('a rule', () => {
  it('has a default for everything but its name, condition and levels', () => {
    const rule = readRule({ id: 'a', cond: { kind: 'absence' }, levels: { warning: 60 } });
    expect(rule).toMatchObject({
      forS: 0,
      repeatS: 14_400,
      by: ['model', 'version'],
      clear: { ratio: 0.9, forS: 300 },
    });
    for (const draft of defaultRules) expect(readRule(draft).id).toBe(draft.id);
  });

  it.each([
    ['no level', { id: 'a', cond: { kind: 'absence' } }],
    ['an unknown field', { id: 'a', cond: { kind: 'absence' }, levels: { warning: 1 }, else: 1 }],
    ['a name that is markup', { id: '<b>', cond: { kind: 'absence' }, levels: { warning: 1 } }],
    [
      'a title with a line break',
      { id: 'a', title: 'a\r\nBcc: b', cond: { kind: 'absence' }, levels: { warning: 1 } },
    ],
    [
      'an unknown zone',
      { id: 'a', cond: { kind: 'absence' }, levels: { warning: 1 }, schedule: { tz: 'Moon/Base' } },
    ],
    [
      'a runbook that is a script',
      { id: 'a', cond: { kind: 'absence' }, levels: { warning: 1 }, runbook: 'javascript:alert(1)' },
    ],
    [
      'a threshold that is no number',
      { id: 'a', cond: { kind: 'absence' }, levels: { warning: Number.NaN } },
    ],
  ])('is refused with %s', (_, value) => {
    expect(() => readRule(value)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_REFUSED' }));
  });

  it('is refused with a typed error whatever it is', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        expect(() => readRule(value)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_REFUSED' }));
      }),
    );
  });

  it('does not let a contact name any variable', () => {
    const contact = {
      id: 'a',
      kind: 'webhook',
      url: 'https://example.org/',
      secretEnv: 'INLAY_DATABASE_URL',
    };
    expect(() => readContact(contact)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_REFUSED' }));
    expect(() =>
      readContact({ ...contact, secretEnv: 'INLAY_ALERT_A', url: 'https://u:p@example.org/' }),
    ).toThrow(expect.objectContaining({ code: 'ERR_INLAY_REFUSED' }));
  });
});

const pager = readContact({ id: 'pager', kind: 'slack', url: 'https://example.org/' });
const boss = readContact({ id: 'boss', kind: 'slack', url: 'https://example.org/', isDefault: false });

function ruleOf(draft: Partial<AlertRuleDraft> = {}): AlertRule {
  return readRule({ id: 'errors', cond: { kind: 'absence' }, levels: { warning: 1 }, ...draft });
}

function alertOf(rank: Rank, firedAt: number, more: Partial<LiveAlert> = {}): LiveAlert {
  const state: AlertState['state'] = rank === 0 ? 'resolved' : 'firing';
  return {
    fingerprint: 'a',
    rule: ruleOf(),
    labels: { model: 'digits', version: '1.0.0' },
    state: { ...inactive, state, rank, firedAt },
    value: 1,
    text: 'seen',
    ackedBy: null,
    peak: rank === 0 ? 1 : rank,
    escalatedTo: [],
    ...more,
  };
}

/** Tells at several times; `[time, contact, status, alerts]` of each notification. */
function telling(contacts: readonly Contact[] = [pager, boss]) {
  let groups: Groups = {};
  return (
    alerts: readonly LiveAlert[],
    now: number,
    silences: readonly { matchers: Record<string, string> }[] = [],
  ) => {
    const told = tell(alerts, contacts, silences, groups, now);
    groups = JSON.parse(JSON.stringify(told.groups)) as Groups;
    return told.outgoing.map(({ contact, body }) => [
      contact,
      body.status,
      body.alerts.map((one) => one.fingerprint).join(),
    ]);
  };
}

describe('notifications', () => {
  it('wait for others of the group, and then go out together', () => {
    const at = telling();
    const a = alertOf(1, 1000);
    const b = alertOf(2, 11_000, { fingerprint: 'b', labels: { model: 'digits', version: '2.0.0' } });
    const c = alertOf(1, 11_000, { fingerprint: 'c', labels: { model: 'faces' } });
    expect(at([a], 1000)).toEqual([]);
    expect(at([a, b, c], 11_000)).toEqual([]);
    expect(at([a, b, c], 1000 + GROUP_WAIT_MS)).toEqual([['pager', 'firing', 'a,b']]);
    expect(at([a, b, c], 11_000 + GROUP_WAIT_MS)).toEqual([['pager', 'firing', 'c']]);
    expect(at([a, b, c], 600_000)).toEqual([]);
  });

  it('say what is new not more often than every 5 minutes, and repeat after 4 hours', () => {
    const at = telling();
    const a = alertOf(1, 0);
    at([a], 0);
    expect(at([a], GROUP_WAIT_MS)).toHaveLength(1);
    const ended = alertOf(0, 0);
    const b = alertOf(1, 40_000, { fingerprint: 'b' });
    expect(at([a, b], 60_000)).toEqual([]);
    expect(at([a, b], GROUP_WAIT_MS + GROUP_INTERVAL_MS)).toEqual([['pager', 'firing', 'a,b']]);
    const again = GROUP_WAIT_MS + GROUP_INTERVAL_MS + 14_400_000;
    expect(at([a, b], again - 1)).toEqual([]);
    expect(at([a, b], again)).toEqual([['pager', 'firing', 'a,b']]);
    expect(at([ended, b], again + GROUP_INTERVAL_MS)).toEqual([['pager', 'firing', 'b,a']]);
    expect(
      at([ended, { ...b, state: { ...b.state, state: 'resolved', rank: 0 } }], again + 2 * GROUP_INTERVAL_MS),
    ).toEqual([['pager', 'resolved', 'b']]);
    expect(at([ended], again + 10 * GROUP_INTERVAL_MS)).toEqual([]);
  });

  it('do not repeat what somebody takes care of', () => {
    const at = telling();
    const a = alertOf(1, 0);
    at([a], 0);
    at([a], GROUP_WAIT_MS);
    const acked = { ...a, state: { ...a.state, state: 'acked' as const } };
    expect(at([acked], 100_000_000)).toEqual([]);
  });

  it('go out at once when it gets worse, and not when it gets better', () => {
    const at = telling();
    at([alertOf(1, 0)], 0);
    at([alertOf(1, 0)], GROUP_WAIT_MS);
    expect(at([alertOf(2, 0)], GROUP_WAIT_MS + 1)).toHaveLength(1);
    expect(at([alertOf(1, 0)], GROUP_WAIT_MS + 2)).toEqual([]);
    expect(at([alertOf(2, 0)], GROUP_WAIT_MS + 3)).toHaveLength(1);
  });

  it('go out at once for an emergency, also while the rule is muted', () => {
    const rule = ruleOf({ schedule: { mute: [{}] } });
    const at = telling();
    expect(at([alertOf(2, 0, { rule })], 10 * minute)).toEqual([]);
    expect(at([alertOf(3, 0, { rule })], 11 * minute)).toEqual([['pager', 'firing', 'a']]);
  });

  it('come when the mute time is over, if there is still something to say', () => {
    const rule = ruleOf({ schedule: { mute: [{ from: '00:00', to: '06:00' }] } });
    const at = telling();
    expect(at([alertOf(1, 0, { rule })], minute)).toEqual([]);
    at([alertOf(1, 0, { rule })], 6 * 3_600_000);
    expect(at([alertOf(1, 0, { rule })], 6 * 3_600_000 + GROUP_WAIT_MS)).toHaveLength(1);
  });

  it('do not come for what is silenced', () => {
    const at = telling();
    const a = alertOf(3, 0);
    expect(at([a], 0, [{ matchers: { model: 'digits', rule: 'errors' } }])).toEqual([]);
    expect(at([a], 1, [{ matchers: { model: 'faces' } }])).toHaveLength(1);
    expect(telling()([a], 0, [{ matchers: { level: 'emergency' } }])).toEqual([]);
    expect(telling()([a], 0, [{ matchers: {} }])).toHaveLength(1);
  });

  it('do not come for what a graver alert explains, and never vanish because two explain each other', () => {
    const inhibitedBy = [{ level: 'warning' as const, same: ['model'] }];
    const a = alertOf(2, 0, { rule: ruleOf({ inhibitedBy }) });
    const b = alertOf(1, 0, { fingerprint: 'b', rule: ruleOf({ id: 'other', inhibitedBy }) });
    const far = alertOf(1, 0, {
      fingerprint: 'c',
      labels: { model: 'faces' },
      rule: ruleOf({ id: 'third', inhibitedBy }),
    });
    const at = telling();
    at([a, b, far], 0);
    expect(at([a, b, far], GROUP_WAIT_MS)).toEqual([
      ['pager', 'firing', 'a'],
      ['pager', 'firing', 'c'],
    ]);
    const equal = telling();
    const same = [alertOf(2, 0, { rule: a.rule }), alertOf(2, 0, { fingerprint: 'b', rule: b.rule })];
    equal(same, 0);
    expect(equal(same, GROUP_WAIT_MS)).toEqual([['pager', 'firing', 'a']]);
  });

  it('follow routes, by level', () => {
    const route = [{ contact: 'boss', levels: ['critical' as const] }];
    const at = telling();
    at([alertOf(1, 0, { rule: ruleOf({ route }) })], 0);
    expect(at([alertOf(1, 0, { rule: ruleOf({ route }) })], GROUP_WAIT_MS)).toEqual([]);
    at([alertOf(2, 0, { rule: ruleOf({ route }) })], minute);
    expect(at([alertOf(2, 0, { rule: ruleOf({ route }) })], minute + GROUP_WAIT_MS)).toEqual([
      ['boss', 'firing', 'a'],
    ]);
  });

  it('reach whom they are escalated to at once', () => {
    const at = telling();
    at([alertOf(1, 0)], 0);
    at([alertOf(1, 0)], GROUP_WAIT_MS);
    expect(at([alertOf(1, 0, { escalatedTo: ['boss'] })], GROUP_WAIT_MS + 1)).toEqual([
      ['boss', 'firing', 'a'],
    ]);
  });

  it('tell each contact of each incident once, whatever happens, between repeats (model)', () => {
    const change = fc.record({
      of: fc.integer({ min: 0, max: 2 }),
      rank: fc.integer({ min: 0, max: 3 }) as fc.Arbitrary<Rank>,
      after: fc.integer({ min: 1, max: 400_000 }),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
        const ranks: Rank[] = [0, 0, 0];
        const fired = [0, 0, 0];
        const identities = new Set<string>();
        const told = new Map<string, number>();
        let groups: Groups = {};
        let now = 0;
        for (const { of, rank, after } of changes) {
          now += after;
          if (ranks[of] === 0 && rank > 0) fired[of] = now;
          ranks[of] = rank;
          const alerts = ranks.map((one, i) => alertOf(one, fired[i] ?? 0, { fingerprint: String(i) }));
          const result = tell(alerts, [pager], [], groups, now);
          groups = result.groups;
          for (const { identity, body } of result.outgoing) {
            expect(identities.has(identity)).toBe(false);
            identities.add(identity);
            expect(body.alerts.length).toBeGreaterThan(0);
            for (const one of body.alerts) {
              const key = `${one.fingerprint}@${one.startsAt}`;
              if (one.status === 'resolved') {
                expect(told.get(key)).toBe(1);
                told.set(key, 2);
              } else told.set(key, 1);
            }
          }
        }
        // In the end whatever ends is told of to those who know of it, and nothing is left behind.
        const ended = ranks.map((_, i) => alertOf(0, fired[i] ?? 0, { fingerprint: String(i) }));
        const last = tell(ended, [pager], [], groups, now + GROUP_INTERVAL_MS);
        for (const one of last.outgoing.flatMap(({ body }) => body.alerts))
          expect(one.status).toBe('resolved');
        expect(tell(ended, [pager], [], last.groups, now + 3 * GROUP_INTERVAL_MS)).toEqual({
          groups: {},
          outgoing: [],
        });
      }),
      { numRuns: 300 },
    );
  });
});
