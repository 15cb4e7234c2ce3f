import type { AlertRuleDraft } from './rule.ts';

/** Rules that a new server begins with. */
export const defaultRules: readonly AlertRuleDraft[] = [
  {
    id: 'error-rate',
    title: 'More calls fail than usual',
    cond: { kind: 'ratio', signal: 'errorRate', windowS: 900 },
    min: { devices: 30, n: 100 },
    levels: {
      warning: { ratio: 2, value: 0.01 },
      critical: { ratio: 4, value: 0.03 },
      emergency: { value: 0.25 },
    },
    rollback: true,
  },
  {
    id: 'latency',
    title: 'Calls take longer than usual',
    cond: { kind: 'ratio', signal: 'p95', windowS: 1800 },
    min: { devices: 30, n: 200 },
    levels: { warning: { ratio: 1.3 }, critical: { ratio: 2 }, emergency: { ratio: 5 } },
    inhibitedBy: [{ level: 'emergency', same: ['model'] }],
  },
  {
    id: 'fatal',
    title: 'Apps end during a call',
    cond: { kind: 'threshold', signal: 'fatal', windowS: 3600 },
    levels: {
      warning: 2,
      critical: [5, { value: 2, share: 0.01 }],
      emergency: [20, { value: 3, share: 0.05 }],
    },
    rollback: true,
  },
  {
    id: 'drift',
    title: 'Inputs or outputs differ from the reference',
    cond: { kind: 'drift' },
    levels: { warning: 1, critical: [2, { share: 0.3 }] },
    clear: { ratio: 0.9, forS: 3600 },
  },
  {
    id: 'accuracy',
    title: 'Labels say that the model is worse than it was',
    cond: { kind: 'accuracy' },
    levels: { warning: 0.02, critical: 0.05 },
    clear: { ratio: 0.9, forS: 3600 },
  },
  {
    id: 'slo',
    title: 'The allowance of failed calls is used up too fast',
    cond: {
      kind: 'burn-rate',
      objective: 0.99,
      windows: [
        { longS: 3600, shortS: 300, factor: 14.4, level: 'critical' },
        { longS: 21_600, shortS: 1800, factor: 6, level: 'critical' },
        { longS: 259_200, shortS: 21_600, factor: 1, level: 'warning' },
      ],
    },
    by: ['model'],
    min: { devices: 30, n: 1000 },
    inhibitedBy: [{ level: 'critical', same: ['model'], rule: 'error-rate' }],
  },
  {
    id: 'rollout',
    title: 'A rollout was stopped, or waits for a person',
    cond: { kind: 'guard' },
    levels: { warning: { held: 1 }, critical: { failed: 1 } },
  },
  {
    id: 'telemetry',
    title: 'Reports get lost or come with wrong clocks',
    cond: { kind: 'loss' },
    min: { devices: 0, n: 200 },
    levels: { warning: [0.02, { skew: 0.05 }], critical: [0.1, { silentArms: 1 }] },
    by: [],
    groupBy: [],
  },
  {
    id: 'silence',
    title: 'No device reports any more',
    cond: { kind: 'absence' },
    min: { devices: 30, n: 0 },
    levels: { emergency: 900 },
    by: ['model'],
  },
];
