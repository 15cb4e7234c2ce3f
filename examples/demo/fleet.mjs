import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('device.mjs', import.meta.url));

/**
 * Starts devices, spread over processes, and keeps what they report.
 * @param {{ devices: number, processes: number } & Record<string, unknown>} options The rest goes to each process.
 */
export function startFleet({ devices, processes, ...settings }) {
  const latest = new Map();
  let latencies = [];
  const errors = [];
  const children = Array.from({ length: processes }, (_, index) => {
    const ids = Array.from({ length: devices }, (_device, id) => id).filter((id) => id % processes === index);
    const child = fork(SCRIPT, [JSON.stringify({ ...settings, ids })]);
    child.on('message', ({ devices: reports, error }) => {
      if (error !== undefined) errors.push(error);
      for (const report of reports ?? []) {
        latencies.push(...report.latencies);
        latest.set(report.id, report);
      }
    });
    child.on('exit', (code) => {
      if (code !== 0) errors.push(`A device process ended with exit code ${code}.`);
    });
    return child;
  });

  return {
    errors,
    /** What all devices together did so far. Latencies are those since the last call. */
    read() {
      const reports = [...latest.values()];
      const seen = reports.flatMap(({ version, byVersion }) => [version, ...Object.keys(byVersion)]);
      const versions = Object.fromEntries(
        [...new Set(seen)].sort(byNumbers).map((version) => [version, blank()]),
      );
      for (const { version, byVersion } of reports) {
        versions[version].devices += 1;
        for (const [name, { calls, correct }] of Object.entries(byVersion)) {
          const row = versions[name];
          row.calls += calls;
          row.correct += correct;
        }
      }
      const recent = latencies.sort((a, b) => a - b);
      latencies = [];
      return {
        devices: reports.length,
        versions,
        calls: sum(Object.values(versions), 'calls'),
        failedCalls: sum(reports, 'failed') + errors.filter((error) => error.includes('exit code')).length,
        bytesDownloaded: sum(reports, 'bytesDownloaded'),
        p50Ms: recent[Math.floor(recent.length * 0.5)] ?? 0,
        p95Ms: recent[Math.floor(recent.length * 0.95)] ?? 0,
      };
    },
    async stop() {
      await Promise.all(
        children.map(async (child) => {
          if (child.exitCode !== null) return;
          const exited = once(child, 'exit');
          if (child.connected) child.send('stop');
          await exited;
        }),
      );
    },
    kill() {
      for (const child of children) child.kill();
    },
  };
}

const { compare: byNumbers } = new Intl.Collator('en', { numeric: true });

function blank() {
  return { devices: 0, calls: 0, correct: 0 };
}

function sum(rows, key) {
  return rows.reduce((total, row) => total + row[key], 0);
}
