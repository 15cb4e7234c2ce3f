import Table from 'cli-table3';
import { createLogUpdate } from 'log-update';

/** Shows the fleet while it runs: a live table on a terminal, a line now and then elsewhere, nothing for `--json`. */
export function createDisplay({ quiet, stream = process.stdout }) {
  const live = !quiet && stream.isTTY ? createLogUpdate(stream) : undefined;
  let lastLine = 0;

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
      stream.write(`  ${text}\n`);
    },
    show(state) {
      if (quiet || state.devices === 0) return;
      if (live !== undefined) live(table(state));
      else if (Date.now() - lastLine >= 2000) {
        lastLine = Date.now();
        stream.write(`${line(state)}\n`);
      }
    },
    done() {
      live?.done();
    },
  };
}

function table(state) {
  const rows = new Table({
    head: ['version', 'devices', 'calls', 'accuracy'],
    style: { head: [], border: [] },
  });
  for (const [version, row] of Object.entries(state.versions)) {
    rows.push([version, row.devices, row.calls, accuracy(row)]);
  }
  return `${rows.toString()}\n${totals(state)}`;
}

function line(state) {
  const versions = Object.entries(state.versions).map(
    ([version, row]) => `${version} on ${row.devices} (${accuracy(row)})`,
  );
  return `  ${versions.join(', ')} · ${totals(state)}`;
}

function totals(state) {
  const { callsPerSecond, p50Ms, p95Ms, failedCalls, bytesDownloaded } = state;
  return [
    `${Math.round(callsPerSecond)} calls/s`,
    `p50 ${p50Ms.toFixed(2)} ms`,
    `p95 ${p95Ms.toFixed(2)} ms`,
    `${failedCalls} failed`,
    `${(bytesDownloaded / 1e6).toFixed(1)} MB downloaded`,
  ].join(' · ');
}

/** Share of right answers, as text. */
export function accuracy({ calls, correct }) {
  return calls === 0 ? '–' : `${((100 * correct) / calls).toFixed(1)} %`;
}
