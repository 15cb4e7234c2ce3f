/** How many runs can go on at once: processor cores, less what a container is allowed to use. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** What {@link countCores} finds. */
export interface Cores {
  /** Cores that this process may run on. Two threads of one core share its arithmetic units and count once. */
  readonly physical: number;
  /** Processors as the operating system counts them. */
  readonly logical: number;
  /** Processor time that the control group may use, in cores; absent when it is not limited. */
  readonly quota?: number;
  /** Version of the control groups that manage processor time; absent where there are none. */
  readonly cgroup?: 'v1' | 'v2';
  /** Whole cores that can be kept busy: at least 1. */
  readonly usable: number;
}

/** What {@link countCores} looks at. */
export interface CoreProbe {
  /** As `os.availableParallelism()`. */
  readonly logical: number;
  /** Text of a file; `undefined` when it cannot be read. */
  read(path: string): string | undefined;
}

/** Counts the cores of this machine or container. Only Linux tells physical cores and quotas; elsewhere all count. */
export function countCores(probe: CoreProbe = thisMachine()): Cores {
  const { logical } = probe;
  const physical = Math.min(logical, countPhysical(probe) ?? logical);
  const { quota, cgroup } = findQuota(probe);
  return {
    physical,
    logical,
    ...(quota !== undefined && { quota }),
    ...(cgroup !== undefined && { cgroup }),
    usable: Math.max(1, Math.floor(Math.min(physical, quota ?? physical))),
  };
}

function thisMachine(): CoreProbe {
  return {
    logical: availableParallelism(),
    read: (path) => {
      try {
        return readFileSync(path, 'utf8');
      } catch {
        return undefined;
      }
    },
  };
}

/** Distinct cores among the processors that this process may run on; `undefined` when the kernel does not tell. */
function countPhysical({ read }: CoreProbe): number | undefined {
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(read('/proc/self/status') ?? '')?.[1];
  const numbers = parseCpuList(allowed ?? read('/sys/devices/system/cpu/online')?.trim() ?? '');
  const siblings = numbers.map((number) =>
    read(`/sys/devices/system/cpu/cpu${number}/topology/thread_siblings_list`),
  );
  const known = new Set(siblings.filter((list) => list !== undefined));
  if (known.size > 0 && !siblings.includes(undefined)) return known.size;
  return countInCpuInfo(read('/proc/cpuinfo') ?? '', new Set(numbers));
}

/** Counts pairs of package and core in `/proc/cpuinfo`, which only x86 has. */
function countInCpuInfo(text: string, allowed: ReadonlySet<number>): number | undefined {
  const cores = new Set<string>();
  for (const block of text.split(/\n\s*\n/)) {
    const field = (name: string): string | undefined =>
      new RegExp(`^${name}\\s*:\\s*(\\d+)$`, 'm').exec(block)?.[1];
    const [processor, core] = [field('processor'), field('core id')];
    if (processor === undefined || core === undefined) continue;
    if (allowed.size === 0 || allowed.has(Number(processor))) cores.add(`${field('physical id')} ${core}`);
  }
  return cores.size === 0 ? undefined : cores.size;
}

/** More processors than any kernel is built for. */
const MAX_CPU = 2 ** 16;

/** Numbers of a list such as `0-3,8`; empty if it is none. */
function parseCpuList(list: string): readonly number[] {
  const numbers: number[] = [];
  for (const range of list.split(',')) {
    const [, from, to = from] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? [];
    if (from === undefined || Number(to) > MAX_CPU) return [];
    for (let number = Number(from); number <= Number(to); number += 1) numbers.push(number);
  }
  return numbers;
}

/** Where container runtimes mount the hierarchy that manages processor time. */
const V1_MOUNTS = ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup/cpu,cpuacct', '/sys/fs/cgroup/cpuacct,cpu'];
const V2_MOUNTS = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'];

/** The smallest quota of this process's group and of all above it. */
function findQuota(probe: CoreProbe): Pick<Cores, 'quota' | 'cgroup'> {
  // Lines are `hierarchy:controllers:path`; version 2 has number 0 and no controllers (cgroups(7)).
  const groups = (probe.read('/proc/self/cgroup') ?? '').split('\n').map((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    return { controllers: controllers?.split(','), path: path ?? '' };
  });
  const v1 = groups.find(({ controllers }) => controllers?.includes('cpu'));
  const v2 = groups.find(({ controllers }) => controllers?.[0] === '');
  const group = v1 ?? v2;
  if (group === undefined) return {};
  const quotaOf = v1 === undefined ? quotaV2 : quotaV1;
  const quotas = (v1 === undefined ? V2_MOUNTS : V1_MOUNTS).flatMap((mount) =>
    ancestors(group.path).map((path) => quotaOf(probe, `${mount}${path}`)),
  );
  const quota = Math.min(...quotas);
  return { cgroup: v1 === undefined ? 'v2' : 'v1', ...(Number.isFinite(quota) && { quota }) };
}

/**
 * A group and all above it, the root as ''. In a container the group may be named as the host sees it, while its own
 * directory is mounted as the root: what is not there has no quota.
 */
function ancestors(path: string): readonly string[] {
  const names = path.split('/').filter((name) => name !== '' && name !== '.' && name !== '..');
  return Array.from({ length: names.length + 1 }, (_, depth) =>
    names
      .slice(0, names.length - depth)
      .map((name) => `/${name}`)
      .join(''),
  );
}

/** `cpu.max` is `$MAX $PERIOD` in microseconds, `max` for no limit (Linux, cgroup-v2.rst). */
function quotaV2({ read }: CoreProbe, directory: string): number {
  const [max, period] = (read(`${directory}/cpu.max`) ?? '').trim().split(/\s+/);
  return ratio(max, period);
}

/** A quota of -1 is no limit (Linux, sched-bwc.rst). */
function quotaV1({ read }: CoreProbe, directory: string): number {
  return ratio(read(`${directory}/cpu.cfs_quota_us`)?.trim(), read(`${directory}/cpu.cfs_period_us`)?.trim());
}

function ratio(quota: string | undefined, period: string | undefined): number {
  const cores = Number(quota) / Number(period);
  return cores > 0 ? cores : Number.POSITIVE_INFINITY;
}
