import { availableParallelism } from 'node:os';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { countCores, type Cores } from '../../src/workers/node-cores.ts';

/** Counts on a machine with these files. */
function count(logical: number, files: Readonly<Record<string, string>>): Cores {
  return countCores({ logical, read: (path) => files[path] });
}

/** Files of a machine whose processors are threads of these cores. */
function topology(...cores: readonly (readonly number[])[]): Record<string, string> {
  const entries = cores.flatMap((threads) =>
    threads.map((thread) => [
      `/sys/devices/system/cpu/cpu${thread}/topology/thread_siblings_list`,
      `${threads.join(',')}\n`,
    ]),
  );
  const highest = Math.max(...cores.flat());
  return {
    '/sys/devices/system/cpu/online': `0-${highest}\n`,
    ...(Object.fromEntries(entries) as Record<string, string>),
  };
}

const allowing = (list: string): Record<string, string> => ({
  '/proc/self/status': `Name:\tnode\nCpus_allowed:\tff\nCpus_allowed_list:\t${list}\nMems_allowed:\t1\n`,
});

const FOUR_WITH_SMT = topology([0, 4], [1, 5], [2, 6], [3, 7]);

const CPUINFO = Array.from(
  { length: 4 },
  (_, processor) =>
    `processor\t: ${processor}\nvendor_id\t: GenuineIntel\nphysical id\t: 0\nsiblings\t: 4\ncore id\t\t: ${processor >> 1}\ncpu cores\t: 2\n`,
).join('\n');

const V1 =
  '12:cpuset:/docker/4f\n5:cpu,cpuacct:/docker/4f\n1:name=systemd:/docker/4f\n0::/system.slice/containerd.service\n';

describe('countCores', () => {
  it('counts two threads of one core once', () => {
    expect(count(8, { ...FOUR_WITH_SMT, ...allowing('0-7') })).toEqual({
      physical: 4,
      logical: 8,
      usable: 4,
    });
  });

  it('counts only processors that it may run on', () => {
    expect(count(3, { ...FOUR_WITH_SMT, ...allowing('0,4-5') })).toMatchObject({ physical: 2, usable: 2 });
  });

  it('reads /proc/cpuinfo where the kernel hides the topology', () => {
    expect(count(4, { '/proc/cpuinfo': CPUINFO })).toMatchObject({ physical: 2, usable: 2 });
    expect(count(2, { '/proc/cpuinfo': CPUINFO, ...allowing('0-1') })).toMatchObject({ physical: 1 });
  });

  it('counts all processors where nothing tells threads from cores', () => {
    const arm = 'processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\n\nprocessor\t: 1\n';
    expect(count(2, { '/proc/cpuinfo': arm })).toEqual({ physical: 2, logical: 2, usable: 2 });
    expect(count(10, {})).toEqual({ physical: 10, logical: 10, usable: 10 });
  });

  const quotas: readonly [string, Record<string, string>, Partial<Cores>][] = [
    [
      'a Docker container, version 2: its group is the root',
      { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': '150000 100000\n' },
      { cgroup: 'v2', quota: 1.5, usable: 1 },
    ],
    [
      'a Docker container without a limit',
      { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': 'max 100000\n' },
      { cgroup: 'v2', usable: 4 },
    ],
    [
      'a Docker container, version 1: the host’s name of its group is mounted as the root',
      {
        '/proc/self/cgroup': V1,
        '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '200000\n',
        '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000\n',
      },
      { cgroup: 'v1', quota: 2, usable: 2 },
    ],
    [
      'a Docker container, version 1, without a limit',
      {
        '/proc/self/cgroup': V1,
        '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
        '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
      },
      { cgroup: 'v1', usable: 4 },
    ],
    [
      'a service within a slice: the smallest quota counts',
      {
        '/proc/self/cgroup': '0::/system.slice/app.service\n',
        '/sys/fs/cgroup/system.slice/app.service/cpu.max': 'max 100000\n',
        '/sys/fs/cgroup/system.slice/cpu.max': '300000 100000\n',
      },
      { cgroup: 'v2', quota: 3, usable: 3 },
    ],
    [
      'a Kubernetes pod: the container has less than the pod',
      {
        '/proc/self/cgroup': '0::/kubepods.slice/kubepods-burstable.slice/pod1.slice/cri-2.scope\n',
        '/sys/fs/cgroup/kubepods.slice/cpu.max': '800000 100000\n',
        '/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/cpu.max': 'max 100000\n',
        '/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/pod1.slice/cpu.max': '250000 100000\n',
        '/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/pod1.slice/cri-2.scope/cpu.max':
          '50000 100000\n',
      },
      { cgroup: 'v2', quota: 0.5, usable: 1 },
    ],
    [
      'a group above the root of its namespace',
      { '/proc/self/cgroup': '0::/../../init.scope\n', '/sys/fs/cgroup/cpu.max': '200000 100000\n' },
      { cgroup: 'v2', quota: 2, usable: 2 },
    ],
    [
      'a hybrid machine: version 1 manages the time',
      {
        '/proc/self/cgroup': '1:cpu:/\n0::/\n',
        '/sys/fs/cgroup/cpu.max': '100000 100000\n',
        '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '300000',
        '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000',
      },
      { cgroup: 'v1', quota: 3, usable: 3 },
    ],
    [
      'a quota beyond the machine',
      { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': '6400000 100000\n' },
      { cgroup: 'v2', quota: 64, usable: 4 },
    ],
    [
      'numbers that are none',
      { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': '0 0\n' },
      { cgroup: 'v2', usable: 4 },
    ],
  ];
  for (const [what, files, expected] of quotas) {
    it(`respects the quota of ${what}`, () => {
      const found = count(8, { ...FOUR_WITH_SMT, ...files });
      expect(found).toEqual({ physical: 4, logical: 8, ...expected });
    });
  }

  it('gives at least one usable core and at most as many as there are, whatever the files say', () => {
    const text = fc.oneof(
      fc.string({ maxLength: 60 }),
      fc.constantFrom('0-99999999999', '3-1', '-5 -5', '1 0', '0::/a/b\n', '2:cpu:/a\n', 'max', ''),
    );
    const names = [
      '/proc/self/status',
      '/proc/self/cgroup',
      '/proc/cpuinfo',
      '/sys/devices/system/cpu/online',
      '/sys/devices/system/cpu/cpu0/topology/thread_siblings_list',
      '/sys/fs/cgroup/cpu.max',
      '/sys/fs/cgroup/a/cpu.max',
      '/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us',
      '/sys/fs/cgroup/cpu/a/cpu.cfs_period_us',
    ];
    const record = fc.record(Object.fromEntries(names.map((name) => [name, text])), { requiredKeys: [] });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 64 }), record, (logical, files) => {
        const { usable, physical } = count(logical, files as Record<string, string>);
        expect(Number.isInteger(usable)).toBe(true);
        expect(usable).toBeGreaterThanOrEqual(1);
        expect(usable).toBeLessThanOrEqual(physical);
        expect(physical).toBeLessThanOrEqual(logical);
      }),
    );
  });

  it('counts this machine', () => {
    const { logical, usable } = countCores();
    expect(logical).toBe(availableParallelism());
    expect(usable).toBeGreaterThanOrEqual(1);
    expect(usable).toBeLessThanOrEqual(logical);
  });
});
