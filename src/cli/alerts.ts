import { InvalidArgumentError, type Command } from 'commander';
import { InputError } from '../core/errors.ts';
import type { SilenceRecord } from '../server/alerts/alerts.ts';
import type { DryRun } from '../server/alerts/dry-run.ts';
import type { AlertRule } from '../server/alerts/rule.ts';
import type { AlertsAnswer } from '../server/api/answers.ts';
import { addAlertContacts } from './alert-contacts.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { formatTime, none } from './format.ts';
import { readJsonFile } from './json-file.ts';
import { parseDuration } from './rollout-options.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly json?: true;
}

/** Adds `inlay alerts`. */
export function addAlerts(program: Command, terminal: Terminal): void {
  const alerts = program.command('alerts').description('what fires, who is told, and by which rules');
  addList(alerts, terminal);
  addAck(alerts, terminal);
  addSilence(alerts, terminal);
  addRules(alerts, terminal);
  addDryRun(alerts, terminal);
  addAlertContacts(alerts, terminal);
}

function addList(alerts: Command, terminal: Terminal): void {
  withServerFlags(alerts.command('list', { isDefault: true }))
    .description('list alerts, those that fire first')
    .option('--all', 'those that have ended as well')
    .option('--json', 'print JSON')
    .action(async (flags: Flags & { readonly all?: true }) => {
      const answer = await connect(flags, terminal).ask<AlertsAnswer>('alerts');
      const isOn = ({ state }: AlertsAnswer['alerts'][number]): boolean =>
        state === 'firing' || state === 'acked';
      const shown = answer.alerts
        .filter((alert) => flags.all === true || isOn(alert))
        .sort((a, b) => Number(isOn(b)) - Number(isOn(a)));
      if (flags.json) {
        terminal.print(JSON.stringify(shown));
        return;
      }
      if (shown.length === 0) {
        terminal.print(flags.all ? 'No alert in the last 30 days.' : 'Nothing fires.');
        return;
      }
      const rows = shown.map(({ fingerprint, level, state, rule, labels, startedAt, ackedBy, text }) => [
        fingerprint.slice(0, 12),
        level,
        ackedBy === null ? state : `${state} by ${ackedBy}`,
        rule,
        Object.values(labels).join(' ') || none,
        formatTime(startedAt),
        text,
      ]);
      terminal.print(table(['id', 'level', 'state', 'rule', 'of', 'since (UTC)', 'what'], rows));
    });
}

function addAck(alerts: Command, terminal: Terminal): void {
  withServerFlags(alerts.command('ack').argument('<id>', 'first digits of its id', parseId))
    .description('say that you take care of an alert: no repeats and no escalation until it gets worse')
    .option('--json', 'print JSON')
    .action(async (id: string, flags: Flags) => {
      const client = connect(flags, terminal);
      const found = (await client.ask<AlertsAnswer>('alerts')).alerts.filter(({ fingerprint }) =>
        fingerprint.startsWith(id),
      );
      const [alert] = found;
      if (!alert || found.length > 1) {
        throw new InputError(
          'ERR_INLAY_FEED_VALUE',
          `${found.length === 0 ? 'No alert has' : `${found.length} alerts have`} an id that begins with ${id}; see \`inlay alerts\`.`,
        );
      }
      await client.ask(`alerts/${alert.fingerprint}/ack`, 'POST');
      terminal.print(
        flags.json
          ? JSON.stringify({ fingerprint: alert.fingerprint })
          : `${alert.rule} is yours: nobody is told again until it gets worse.`,
      );
    });
}

function addSilence(alerts: Command, terminal: Terminal): void {
  withServerFlags(
    alerts
      .command('silence')
      .description('keep alerts with these labels from notifying anybody for a time')
      .argument('<label=value...>', 'such as model=digits or rule=error-rate; all of them'),
  )
    .requiredOption('--for <time>', 'how long, such as 2h', parseDuration)
    .option('--comment <text>', 'why')
    .option('--json', 'print JSON')
    .action(async (pairs: string[], flags: Flags & { readonly for: number; readonly comment?: string }) => {
      const silence = await connect(flags, terminal).ask<SilenceRecord>('alerts/silences', 'POST', {
        matchers: Object.fromEntries(pairs.map(parsePair)),
        untilAt: Date.now() + flags.for * 1000,
        ...(flags.comment !== undefined && { comment: flags.comment }),
      });
      terminal.print(
        flags.json
          ? JSON.stringify(silence)
          : `Alerts with ${pairs.join(' ')} tell nobody until ${formatTime(silence.untilAt)} UTC.`,
      );
    });
}

function addRules(alerts: Command, terminal: Terminal): void {
  withServerFlags(alerts.command('rules'))
    .description('list the rules, or add one from a file of JSON')
    .option('--add <file>', 'add this rule, or replace the one with its id')
    .option('--remove <id>', 'remove this rule')
    .option('--json', 'print JSON')
    .action(async (flags: Flags & { readonly add?: string; readonly remove?: string }) => {
      const client = connect(flags, terminal);
      if (flags.add !== undefined) {
        const rule = readRule(flags.add, terminal.cwd);
        await client.ask(`alerts/rules/${encodeURIComponent(String(rule.id))}`, 'PUT', { rule });
      }
      if (flags.remove !== undefined) {
        await client.ask(`alerts/rules/${encodeURIComponent(flags.remove)}`, 'DELETE');
      }
      const { rules } = await client.ask<{
        rules: readonly { readonly rule: AlertRule; readonly isEnabled: boolean }[];
      }>('alerts/rules');
      if (flags.json) {
        terminal.print(JSON.stringify(rules));
        return;
      }
      const rows = rules.map(({ rule, isEnabled }) => [
        rule.id,
        isEnabled ? 'on' : 'off',
        rule.title,
        Object.keys(rule.levels).join(', ') || none,
      ]);
      terminal.print(table(['id', '', 'title', 'levels'], rows));
    });
}

function addDryRun(alerts: Command, terminal: Terminal): void {
  withServerFlags(
    alerts
      .command('test')
      .description('play a rule on the days before now, and tell when it would have fired')
      .argument('<file>', 'rule in JSON'),
  )
    .option('--days <number>', '1 to 14', parseDays, 7)
    .option('--json', 'print JSON')
    .action(async (file: string, flags: Flags & { readonly days: number }) => {
      const rule = readRule(file, terminal.cwd);
      const { days } = flags;
      const run = await connect(flags, terminal).ask<DryRun>('alerts/rules/dry-run', 'POST', { rule, days });
      if (flags.json) {
        terminal.print(JSON.stringify(run));
        return;
      }
      terminal.print(
        `In the last ${days} days it would have fired ${run.fired} times, in ${run.looks} looks.`,
      );
      const rows = run.events.map(({ at, kind, level, labels, text }) => [
        formatTime(at),
        kind,
        level,
        Object.values(labels).join(' ') || none,
        text,
      ]);
      if (rows.length > 0) terminal.print(`\n${table(['at (UTC)', '', 'level', 'of', 'what'], rows)}`);
    });
}

function readRule(path: string, cwd: string): { readonly id?: unknown } {
  return readJsonFile('rule', path, cwd) as { readonly id?: unknown };
}

function parsePair(text: string): readonly [string, string] {
  const [, name, value] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (name !== undefined && value !== undefined) return [name, value];
  throw new InputError(
    'ERR_INLAY_FEED_VALUE',
    `${JSON.stringify(text)} is no label; write it like model=digits.`,
  );
}

function parseId(text: string): string {
  if (/^[0-9a-f]{4,64}$/.test(text)) return text;
  throw new InvalidArgumentError('It is 4 to 64 hex digits; see `inlay alerts`.');
}

function parseDays(text: string): number {
  const days = Number(text);
  if (/^\d{1,2}$/.test(text) && days >= 1 && days <= 14) return days;
  throw new InvalidArgumentError('It is an integer from 1 to 14.');
}
