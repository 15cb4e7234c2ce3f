import { InvalidArgumentError, Option, type Command } from 'commander';
import type {
  ErrorsAnswer,
  FleetAnswer,
  SeriesAnswer,
  SeriesLine,
  TelemetryHealthAnswer,
} from '../server/api/answers.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { formatDevices, formatLatency, formatShare, formatTime, none } from './format.ts';
import { parseDuration } from './rollout-options.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly json?: true;
}

interface SpanFlags extends Flags {
  readonly version?: string;
  readonly rollout?: string;
  readonly last: number;
  readonly step?: number;
  readonly by: string;
}

/** Adds `inlay fleet`. */
export function addFleet(program: Command, terminal: Terminal): void {
  const fleet = program.command('fleet').description('what devices report, in sums');

  withServerFlags(fleet.command('status', { isDefault: true }))
    .description('count devices by what they run, and tell how telemetry is')
    .option('--model <name>', 'only this model')
    .option('--json', 'print JSON')
    .action(async (flags: Flags & { readonly model?: string }) => {
      const client = connect(flags, terminal);
      const query = flags.model === undefined ? '' : `?model=${encodeURIComponent(flags.model)}`;
      const answer = await client.ask<FleetAnswer>(`fleet${query}`);
      const health = await client.ask<TelemetryHealthAnswer>('telemetry/health');
      if (flags.json) terminal.print(JSON.stringify({ ...answer, health }));
      else printFleet(answer, health, terminal);
    });

  withSpan(fleet.command('series').description('show calls, failures and times over time'))
    .option('--step <time>', 'time between two lines, such as 5m, 1h or 1d', parseDuration)
    .addOption(
      new Option('--by <what>', 'what lines are kept apart by')
        .choices(['version', 'arm', 'cls', 'none'])
        .default('version'),
    )
    .action(async (model: string, flags: SpanFlags) => {
      const { step, by } = flags;
      const answer = await connect(flags, terminal).ask<SeriesAnswer>(
        `fleet/series?${spanQuery(model, flags, { by, ...(step !== undefined && { step: String(step) }) })}`,
      );
      if (flags.json) terminal.print(JSON.stringify(answer));
      else printSeries(answer, terminal);
    });

  withSpan(fleet.command('errors').description('count failed calls by version and code')).action(
    async (model: string, flags: SpanFlags) => {
      const answer = await connect(flags, terminal).ask<ErrorsAnswer>(
        `fleet/errors?${spanQuery(model, flags, {})}`,
      );
      if (flags.json) {
        terminal.print(JSON.stringify(answer));
        return;
      }
      const rows = answer.rows.map(({ version, code, calls, share }) => [
        version,
        code,
        calls === null ? 'hidden' : calls.toLocaleString('en'),
        formatShare(share),
      ]);
      terminal.print(
        rows.length === 0 ? 'No call failed.' : table(['version', 'code', 'calls', 'share'], rows),
      );
    },
  );
}

/** Adds the model, a span and what it can be narrowed to. */
function withSpan(command: Command): Command {
  return withServerFlags(command.argument('<model>', 'name of the model'))
    .option('--version <version>', 'only this version')
    .option('--rollout <id>', 'only this rollout')
    .option('--last <time>', 'how far back', parseSpan, 86_400)
    .option('--json', 'print JSON');
}

function spanQuery(
  model: string,
  { version, rollout, last }: SpanFlags,
  more: Readonly<Record<string, string>>,
): string {
  const to = Date.now();
  return new URLSearchParams({
    model,
    from: String(to - last * 1000),
    to: String(to),
    ...(version !== undefined && { version }),
    ...(rollout !== undefined && { rollout }),
    ...more,
  }).toString();
}

function printFleet(answer: FleetAnswer, health: TelemetryHealthAnswer, terminal: Terminal): void {
  const { devices, kAnonymity, rows } = answer;
  if (rows.length === 0) {
    terminal.print(
      'No device has reported yet; switch telemetry on with `createInlay({ telemetry })`, and publish a model.',
    );
    return;
  }
  const lost = health.lossRate === null ? '' : `; ${formatShare(health.lossRate)} of the reports were lost`;
  terminal.print(`${formatDevices(devices, kAnonymity)} devices reported within a day${lost}.\n`);
  const drawn = rows.map((row) => [
    row.model,
    row.version,
    row.rollout === '' ? none : `stage ${row.stage}`,
    row.arm === '' ? none : row.arm,
    formatDevices(row.devices, kAnonymity),
    formatTime(row.lastAt),
  ]);
  terminal.print(table(['model', 'version', 'rollout', 'arm', 'devices', 'last report (UTC)'], drawn));
}

/** Lines of a table that fit a screen. */
const mostLines = 60;

function printSeries({ times, lines }: SeriesAnswer, terminal: Terminal): void {
  const at = (line: SeriesLine, i: number): readonly string[] => [
    formatTime(times[i] ?? null),
    line.key,
    (line.calls[i] ?? 0).toLocaleString('en'),
    formatShare(line.errorRate[i] ?? null),
    formatLatency(line.p50[i] ?? null),
    formatLatency(line.p95[i] ?? null),
    formatLatency(line.p99[i] ?? null),
    formatShare(line.cacheHitRate[i] ?? null),
  ];
  const rows = times.flatMap((_, i) =>
    lines.filter((line) => (line.calls[i] ?? 0) > 0).map((line) => at(line, i)),
  );
  if (rows.length === 0) {
    terminal.print(
      'No calls in this time, or of too few devices to be shown; try a longer one with --last 7d.',
    );
    return;
  }
  const head = ['at (UTC)', 'of', 'calls', 'failed', 'p50', 'p95', 'p99', 'cache'];
  terminal.print(table(head, rows.slice(-mostLines)));
  if (rows.length > mostLines) {
    terminal.print(
      `\nThe last ${mostLines} of ${rows.length} lines; --json has them all, --step 1d has fewer.`,
    );
  }
}

function parseSpan(text: string): number {
  const seconds = parseDuration(text);
  if (seconds > 0) return seconds;
  throw new InvalidArgumentError('It is more than nothing.');
}
