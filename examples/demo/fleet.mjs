import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('device.mjs', import.meta.url));

/**
 * Starts devices, spread over processes, and keeps what they report.
 * @param {{ devices: number, processes: number } & Record<string, unknown>} options The rest goes to each process.
 */
export function startFleet({ devices, processes, ...settings }) {
  /** The newest report of each device, and the sums of those before its process was killed. */
  const latest = new Map();
  const past = new Map();
  /** Devices that have ever answered with a version. */
  const exposed = new Map();
  const errors = [];
  let latencies = [];
  const start = (index) => {
    const ids = Array.from({ length: devices }, (_device, id) => id).filter((id) => id % processes === index);
    const child = fork(SCRIPT, [JSON.stringify({ ...settings, ids })]);
    child.on('message', ({ devices: reports, error }) => {
      if (error !== undefined) errors.push(error);
      for (const report of reports ?? []) {
        latencies.push(...report.latencies);
        latest.set(report.id, report);
        for (const version of Object.keys(report.byVersion)) {
          if (!exposed.has(version)) exposed.set(version, new Set());
          exposed.get(version).add(report.id);
        }
      }
    });
    child.on('exit', (code) => {
      if (code !== 0 && children[index] === child)
        errors.push(`A device process ended with exit code ${code}.`);
    });
    return { child, ids };
  };
  const started = Array.from({ length: processes }, (_, index) => start(index));
  const children = started.map(({ child }) => child);
  const idsOf = started.map(({ ids }) => ids);

  return {
    errors,
    /** What all devices together did so far. Latencies are those since the last call. */
    read() {
      const reports = [...latest.values()];
      const all = [...past.values(), ...reports];
      const seen = [
        ...reports.flatMap(({ version, onTrial = version, rejected }) => [
          version,
          onTrial,
          ...rejected.map((one) => one.version),
        ]),
        ...all.flatMap(({ byVersion }) => Object.keys(byVersion)),
      ];
      const versions = Object.fromEntries(
        [...new Set(seen)].sort(byNumbers).map((version) => [version, blank()]),
      );
      for (const { version, onTrial, rejected } of reports) {
        versions[version].devices += 1;
        if (onTrial !== undefined) versions[onTrial].onTrial += 1;
        for (const { version: bad, reason } of rejected) count(versions[bad].rejected, reason);
      }
      for (const { byVersion } of all) {
        for (const [name, { calls, correct }] of Object.entries(byVersion)) {
          versions[name].calls += calls;
          versions[name].correct += correct;
        }
      }
      for (const [version, row] of Object.entries(versions)) row.exposed = exposed.get(version)?.size ?? 0;
      const recent = latencies.sort((a, b) => a - b);
      latencies = [];
      return {
        devices: reports.length,
        versions,
        calls: sum(Object.values(versions), 'calls'),
        failedCalls: sum(all, 'failed') + errors.filter((error) => error.includes('exit code')).length,
        onTrial: reports.filter((report) => report.onTrial !== undefined).map(({ id }) => id),
        roots: reports.map(({ root }) => root),
        strikes: sum(all, 'strikes'),
        bytesDownloaded: sum(all, 'bytesDownloaded'),
        p50Ms: recent[Math.floor(recent.length * 0.5)] ?? 0,
        p95Ms: recent[Math.floor(recent.length * 0.95)] ?? 0,
      };
    },
    /** Kills the process of a device as a crash would, and starts it again. @returns how many devices it has. */
    async crash(id) {
      const index = id % processes;
      const killed = children[index];
      children[index] = undefined;
      killed.kill('SIGKILL');
      await once(killed, 'exit');
      for (const one of idsOf[index]) {
        const report = latest.get(one);
        past.set(`${one} ${killed.pid}`, report);
        latest.delete(one);
      }
      children[index] = start(index).child;
      return idsOf[index].length;
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
      for (const child of children) child?.kill();
    },
  };
}

const { compare: byNumbers } = new Intl.Collator('en', { numeric: true });

function blank() {
  return { devices: 0, exposed: 0, onTrial: 0, rejected: {}, calls: 0, correct: 0 };
}

function count(counts, name) {
  counts[name] = (counts[name] ?? 0) + 1;
}

function sum(rows, key) {
  return rows.reduce((total, row) => total + row[key], 0);
}
