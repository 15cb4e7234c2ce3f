import Table from 'cli-table3';
import { createLogUpdate } from 'log-update';

/** Shows the fleet while it runs: a live table on a terminal, a line now and then elsewhere, nothing for `--json`. */
export function createDisplay({ quiet, stream = process.stdout }) {
  const live = !quiet && stream.isTTY ? createLogUpdate(stream) : undefined;
  let lastLine = Date.now();

  return {
    step(text) {
      if (quiet) return;
      live?.done();
      stream.write(`\n▸ ${text}\n`);
    },
    detail(text) {
      if (quiet) return;
      // The next table goes below this line.
      live?.clear();
      stream.write(text.replace(/^(?=.)/gm, '  ') + '\n');
    },
    show(state) {
      if (quiet || state.devices === 0) return;
      if (live !== undefined) live(table(state));
      else if (Date.now() - lastLine >= 3000) {
        lastLine = Date.now();
        stream.write(`  ${line(state)}\n`);
        if (state.evidence !== undefined) stream.write(`    ${evidenceLine(state.evidence)}\n`);
      }
    },
    done() {
      live?.done();
    },
  };
}

function table(state) {
  const rows = new Table({
    head: ['version', 'devices', 'on trial', 'rejected by', 'calls', 'accuracy'],
    style: { head: [], border: [] },
  });
  for (const [version, row] of Object.entries(state.versions)) {
    rows.push([version, row.devices, row.onTrial, rejectedBy(row), row.calls, accuracy(row)]);
  }
  const evidence = state.evidence === undefined ? '' : `\n${evidenceTable(state.evidence)}`;
  return `${rows.toString()}\n${totals(state)}${evidence}`;
}

/** What runs where, in one line. */
function line(state) {
  const versions = Object.entries(state.versions)
    .filter(([, { devices, rejected }]) => devices > 0 || Object.keys(rejected).length > 0)
    .map(([version, row]) => {
      const refused = rejectedBy(row);
      const notes = [
        row.onTrial > 0 && `${row.onTrial} on trial`,
        refused > 0 && `rejected by ${refused}`,
      ].filter(Boolean);
      return `${version} on ${row.devices}${notes.length > 0 ? ` (${notes.join(', ')})` : ''}`;
    });
  return `${versions.join(', ')} · ${totals(state)}`;
}

function totals({ callsPerSecond, p50Ms, p95Ms, failedCalls }) {
  return [
    `${Math.round(callsPerSecond)} calls/s`,
    `p50 ${p50Ms.toFixed(1)} ms`,
    `p95 ${p95Ms.toFixed(1)} ms`,
    `${failedCalls} failed`,
  ].join(' · ');
}

/** Draws what each guard has seen so far. */
export function evidenceTable({ guards }) {
  const rows = new Table({
    head: ['guard', 'log E', 'fails at', 'bad with it', 'bad in the control', ''],
    style: { head: [], border: [] },
  });
  for (const { guard, logEFail, failAt, treated, control, verdict } of judging(guards)) {
    const isTripwire = failAt === 0;
    rows.push([
      guard,
      isTripwire ? '-' : logEFail.toFixed(1),
      isTripwire ? '-' : failAt.toFixed(1),
      `${treated.bad} of ${treated.judged}`,
      `${control.bad} of ${control.judged}`,
      verdict === 'open' ? '' : verdict,
    ]);
  }
  return rows.toString();
}

function evidenceLine({ devices, guards }) {
  const said = judging(guards)
    .filter(({ failAt }) => failAt > 0)
    .sort((a, b) => b.logEFail - a.logEFail)
    .slice(0, 2)
    .map(
      ({ guard, logEFail, failAt, treated, control }) =>
        `${guard} log E ${logEFail.toFixed(1)} of ${failAt.toFixed(1)} ` +
        `(${treated.bad} of ${treated.judged}, control ${control.bad} of ${control.judged})`,
    );
  return [`guards: ${devices.exposed} exposed`, ...said].join(' · ');
}

/** Guards that have judged a device. */
function judging(guards) {
  return guards.filter(({ guard, treated }) => guard !== 'sample-ratio' && treated.judged > 0);
}

/** Draws what has become of every version. */
export function outcome({ versions }) {
  const rows = new Table({
    head: ['version', 'devices', 'had it', 'calls', 'accuracy', 'rejected by'],
    style: { head: [], border: [] },
  });
  for (const [version, row] of Object.entries(versions)) {
    const reasons = Object.entries(row.rejected).map(([reason, devices]) => `${devices} (${reason})`);
    rows.push([
      version,
      row.devices,
      row.exposed,
      row.calls.toLocaleString('en'),
      accuracy(row),
      reasons.join(', ') || '-',
    ]);
  }
  return rows.toString();
}

function rejectedBy({ rejected }) {
  return Object.values(rejected).reduce((total, devices) => total + devices, 0);
}

/** Share of right answers, as text. */
export function accuracy({ calls, correct }) {
  return calls === 0 ? '-' : `${((100 * correct) / calls).toFixed(1)} %`;
}
