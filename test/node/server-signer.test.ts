import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StoreError } from '../../src/core/errors.ts';
import { toUtf8 } from '../../src/core/bytes.ts';
import {
  createRolloutTargets,
  createSnapshot,
  createTimestamp,
  describeFile,
  expiresIn,
  listReleases,
} from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import type { Signer } from '../../src/publish/signer.ts';
import { openOnlineKey } from '../../src/server/online-key.ts';
import { openSignerMemory } from '../../src/server/signer/memory.ts';
import { createOnlineSigner } from '../../src/server/signer/online-signer.ts';
import type { OnlineSigner, SignedSet, SignerMemory } from '../../src/server/signer/port.ts';
import { ask } from '../../src/server/signer/protocol.ts';
import { createTrustedMetadata } from '../../src/trust/client.ts';
import type { Targets, TargetsPolicy } from '../../src/trust/metadata.ts';
import type { PlanEntry, SignedPlan } from '../../src/update/plan.ts';
import { resolvePlan } from '../../src/update/resolve.ts';
import {
  createPublisher,
  createSigner,
  release,
  rootOf,
  temporaryDirectory,
  testPlatform,
  tinyModel,
  type Publisher,
  type ReachableServer,
  type TestPlatform,
} from './server-fixture.ts';

const refused = expect.objectContaining({ code: 'ERR_INLAY_REFUSED' });
const conflict = expect.objectContaining({ code: 'ERR_INLAY_CONFLICT' });
const unsigned = expect.objectContaining({ code: 'ERR_INLAY_SIGNATURE' });

interface Bench {
  readonly platform: TestPlatform;
  readonly key: Signer;
  readonly publisher: Publisher;
  readonly roots: string[];
  /** Three releases of the model `digits`. */
  readonly entries: readonly [PlanEntry, PlanEntry, PlanEntry];
  readonly memory: SignerMemory & { value: unknown; fault: Error | undefined };
  signer: OnlineSigner;
  targets: string;
  /** Signs the next targets. */
  sign(policy?: TargetsPolicy): Promise<void>;
  plan(changes?: Partial<SignedPlan>): SignedPlan;
  /** Brings plans into force. */
  install(...plans: readonly SignedPlan[]): Promise<SignedSet>;
  /** Asks for plans to be signed, and throws them away. */
  propose(...plans: readonly SignedPlan[]): Promise<string>;
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

async function setUp(): Promise<Bench> {
  const platform = testPlatform();
  const key = await createSigner(platform);
  const publisher = await createPublisher(platform, key);
  const server = { platform } as unknown as ReachableServer;
  for (const version of ['1.0.0', '2.0.0', '3.0.0']) {
    publisher.targets = release(server, publisher, version, tinyModel(version)).targets;
  }
  const [a, b, c] = listReleases(publisher.targets).map(({ path, sha256, length, seq, version }) => ({
    path,
    sha256,
    length,
    seq,
    version,
  }));
  if (!a || !b || !c) throw new Error('There are three releases.');
  const memory: Bench['memory'] = {
    value: undefined,
    fault: undefined,
    read: () => Promise.resolve(structuredClone(memory.value)),
    write: (value) => {
      if (memory.fault) return Promise.reject(memory.fault);
      memory.value = structuredClone(value);
      return Promise.resolve();
    },
  };
  const root = rootOf(publisher, key, expiresIn(platform.now(), 365));
  const versionsOf = async (): Promise<Record<'timestamp' | 'snapshot' | 'rollout', number>> => {
    const { versions } = await bench.signer.public();
    return {
      timestamp: versions.timestamp + 1,
      snapshot: versions.snapshot + 1,
      rollout: versions.rollout + 1,
    };
  };
  const bench: Bench = {
    platform,
    key,
    publisher,
    roots: [text(await signMetadata(root, [publisher.root]))],
    entries: [a, b, c],
    memory,
    signer: createOnlineSigner({ signer: key, platform, memory }),
    targets: '',
    sign: async (policy) => {
      const { targets, signer } = publisher;
      publisher.targets = {
        ...targets,
        version: targets.version + 1,
        ...(policy && { custom: policy }),
      };
      bench.targets = text(await signMetadata(publisher.targets, [signer]));
    },
    plan: (changes = {}) => ({
      id: 'r-1',
      model: 'digits',
      state: 'ramp',
      salt: '0011223344556677',
      bp: 1000,
      base: a,
      cand: b,
      ...changes,
    }),
    propose: async (...plans) =>
      bench.signer.rollout({
        version: (await versionsOf()).rollout,
        roots: bench.roots,
        targets: bench.targets,
        channels: { stable: plans },
        before: (await bench.signer.public()).inForce?.rollout ?? '',
      }),
    install: async (...plans) => {
      const rollout = await bench.propose(...plans);
      const parts = { roots: bench.roots, targets: bench.targets, rollout };
      const { snapshot: version, timestamp: next } = await versionsOf();
      const snapshot = await bench.signer.snapshot({ ...parts, version });
      const timestamp = await bench.signer.timestamp({ ...parts, snapshot, version: next });
      return { ...parts, snapshot, timestamp };
    },
  };
  await bench.sign();
  return bench;
}

/** Verifies a set as a device does. */
async function trust({ platform, roots }: Bench, set: SignedSet): ReturnType<typeof createTrustedMetadata> {
  const trusted = await createTrustedMetadata({ platform, root: toUtf8(roots[0] ?? '') });
  for (const later of roots.slice(1)) await trusted.updateRoot(toUtf8(later));
  await trusted.updateTimestamp(toUtf8(set.timestamp));
  await trusted.updateSnapshot(toUtf8(set.snapshot));
  await trusted.updateTargets(toUtf8(set.targets));
  await trusted.updateRollout(toUtf8(set.rollout));
  return trusted;
}

describe('the online signer', () => {
  it('signs a set that devices verify, and says when', async () => {
    const bench = await setUp();
    const set = await bench.install(bench.plan());
    const trusted = await trust(bench, set);
    expect(resolvePlan(trusted, 'stable', 'digits')).toMatchObject({ bp: 1000, cand: bench.entries[1] });
    expect(trusted.timestamp?.issued).toBe('2026-03-01T12:00:00Z');
    expect(trusted.timestamp?.expires).toBe('2026-03-04T12:00:00Z');
    expect((await bench.signer.public()).inForce).toEqual(set);
  });

  it('refuses versions that fall or come again', async () => {
    const bench = await setUp();
    const { rollout, snapshot } = await bench.install(bench.plan());
    const parts = { roots: bench.roots, targets: bench.targets };
    const before = rollout;
    for (const version of [-1, 0, 1, 1.5, Number.NaN, 2 ** 53]) {
      const channels = { stable: [bench.plan({ bp: 2000 })] };
      await expect(bench.signer.rollout({ ...parts, version, channels, before })).rejects.toEqual(conflict);
      await expect(bench.signer.snapshot({ ...parts, version, rollout })).rejects.toEqual(conflict);
      const stamp = bench.signer.timestamp({ ...parts, version, rollout, snapshot });
      await expect(stamp).rejects.toEqual(conflict);
    }
    await bench.propose(bench.plan({ bp: 2000 }));
    const again = bench.signer.rollout({
      ...parts,
      before,
      version: 2,
      channels: { stable: [bench.plan()] },
    });
    await expect(again).rejects.toEqual(conflict);
  });

  it.each([
    ['a share that falls', { bp: 999 }],
    ['another salt', { salt: '7766554433221100' }],
    ['another candidate', { cand: 'c' }],
    ['another base', { base: 'c' }],
    ['no base', { base: null }],
    ['another unit', { bucketBy: 'site' }],
    ['a share beyond all', { bp: 10_001 }],
    ['a fraction', { bp: 1000.5 }],
    ['a stage that begins above its share', { fromBp: 1001 }],
    ['a complete rollout of a part', { state: 'complete' }],
    ['a duration without a start', { durationS: 60 }],
    ['a lease shorter than two polls', { leaseS: 7199 }],
    ['a lease shorter than two polls of its own', { pollS: 600, leaseS: 1199 }],
    ['501 devices', { allow: Array.from({ length: 501 }, () => '0'.repeat(32)) }],
    ['devices by their identifiers', { deny: ['install-1'] }],
    ['a rule of no form', { rules: [{ app: 'new' }] }],
    ['a state that is none', { state: 'done' }],
    ['a stage below the first', { stage: -1 }],
    ['an arm that runs the base', { arms: [{ name: 'a', entry: 'a', ranges: [] }], bp: 1001 }],
    [
      'an arm in buckets that were reached',
      { arms: [{ name: 'a', entry: 'c', ranges: [[999, 1001]] }], bp: 1001 },
    ],
    ['an arm above the share', { arms: [{ name: 'a', entry: 'c', ranges: [[1001, 1002]] }], bp: 1001 }],
    ['a shadow within the share', { shadow: { bp: 1000, sampleBp: 100 } }],
    ['a shadow beyond all', { shadow: { bp: 10_001, sampleBp: 100 } }],
    ['a shadow of what is complete', { state: 'complete', bp: 10_000, shadow: { bp: 10_000, sampleBp: 1 } }],
    ['reports without pause', { report: { everyS: 0 } }],
  ])('refuses %s', async (_, changes) => {
    const bench = await setUp();
    await bench.install(bench.plan());
    const [a, , c] = bench.entries;
    const named: unknown = JSON.parse(JSON.stringify(changes), (_key, value: unknown) =>
      value === 'c' ? c : value === 'a' && _key === 'entry' ? a : value,
    );
    const error = await bench
      .propose(bench.plan(named as Partial<SignedPlan>))
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: 'ServerError', code: expect.stringMatching(/_(CONFLICT|REFUSED)$/) });
    await bench.propose(bench.plan({ bp: 1001 }));
  });

  it('lets arms only grow, into buckets that the share has not reached', async () => {
    const bench = await setUp();
    const [a, b, c] = bench.entries;
    const arm = (...ranges: (readonly [number, number])[]): NonNullable<SignedPlan['arms']>[number] => ({
      name: 'x',
      entry: c,
      ranges,
    });
    await bench.install(bench.plan({ arms: [arm([0, 400])], stage: 1 }));
    const next = (changes: Partial<SignedPlan>): Promise<string> =>
      bench.propose(bench.plan({ bp: 2000, stage: 1, arms: [arm([0, 400])], ...changes }));
    for (const changes of [
      { arms: [] },
      { arms: [arm()] },
      { arms: [arm([0, 399])] },
      { arms: [arm([0, 401])] },
      { arms: [arm([0, 400], [999, 1200])] },
      { arms: [arm([1, 400])] },
      { arms: [{ ...arm([0, 400]), name: 'y' }] },
      { arms: [{ ...arm([0, 400]), entry: b }] },
      { arms: [{ ...arm([0, 400]), entry: a }] },
      { arms: [{ ...arm([0, 400]), entry: { ...c, sha256: a.sha256 } }] },
      { arms: [arm([0, 400]), { name: 'y', entry: { ...c, seq: 9 }, ranges: [] }] },
      { arms: [arm([0, 400]), { name: 'y', entry: b, ranges: [[1000, 1001]] as const }], bp: 1000 },
      { state: 'halted', bp: 500 },
      { stage: 0 },
    ] as const)
      await expect(next(changes)).rejects.toMatchObject({
        code: expect.stringMatching(/_(CONFLICT|REFUSED)$/),
      });
    await next({ arms: [arm([0, 400], [1000, 1500])] });
    await next({ arms: [arm([0, 400]), { name: 'y', entry: b, ranges: [[1000, 2000]] }], stage: 2 });
    await next({ state: 'complete', bp: 10_000, arms: [] });
  });

  it('keeps an arm that is withdrawn, and lets none begin', async () => {
    const bench = await setUp();
    const [, , c] = bench.entries;
    const arms = [{ name: 'x', entry: c, ranges: [[0, 400]] as const }];
    await bench.install(bench.plan({ arms }));
    await bench.sign({ models: { digits: { revoked: [3] } } });
    await bench.propose(bench.plan({ arms, bp: 2000 }));
    const more = [...arms, { name: 'y', entry: c, ranges: [[1000, 2000]] as const }];
    await expect(bench.propose(bench.plan({ arms: more, bp: 2000 }))).rejects.toEqual(conflict);
  });

  it('lets nothing take the place of what is pinned until that is taken back', async () => {
    const bench = await setUp();
    const [, , c] = bench.entries;
    const next = bench.plan({ id: 'r-2', salt: 'ffeeddccbbaa9988', cand: c });
    await bench.install(bench.plan({ pinned: true }));
    await expect(bench.propose(next)).rejects.toEqual(conflict);
    await bench.propose(bench.plan({ pinned: true, bp: 2000 }));
    await bench.install(bench.plan());
    await bench.install(next);
    await bench.install({ ...next, pinned: true, state: 'rolledback' });
    await bench.propose(bench.plan({ id: 'r-3' }));
  });

  it('refuses releases that the offline key did not sign, or withdrew', async () => {
    const bench = await setUp();
    const [a, b, c] = bench.entries;
    for (const cand of [
      { ...b, sha256: a.sha256 },
      { ...b, length: 1 },
      { ...b, path: 'models/digits/9/evil.onnx' },
      { ...b, seq: 9 },
    ]) {
      await expect(bench.propose(bench.plan({ cand }))).rejects.toEqual(conflict);
      await expect(bench.propose(bench.plan({ base: cand }))).rejects.toEqual(conflict);
    }
    await expect(bench.propose(bench.plan({ model: 'faces' }))).rejects.toEqual(conflict);
    await bench.sign({ models: { digits: { floorSeq: 2, revoked: [3] } } });
    await expect(bench.propose(bench.plan({ cand: a, base: null }))).rejects.toEqual(conflict);
    await expect(bench.propose(bench.plan({ cand: c, base: null }))).rejects.toEqual(conflict);
    await expect(bench.propose(bench.plan({ base: a }))).rejects.toEqual(conflict);
    await bench.propose(bench.plan({ base: null }));
  });

  it('lets a state be followed only by those that may follow, and nothing by the end', async () => {
    const states = ['ramp', 'paused', 'halted', 'rolledback', 'complete'] as const;
    const allowed: Record<string, string> = {
      ramp: 'ramp paused halted rolledback complete',
      paused: 'ramp paused halted rolledback complete',
      halted: 'ramp halted rolledback',
      rolledback: 'rolledback',
      complete: 'rolledback complete',
    };
    for (const from of states) {
      const bench = await setUp();
      await bench.install(bench.plan({ state: from, bp: 10_000 }));
      for (const state of states) {
        const signed = await bench.propose(bench.plan({ state, bp: 10_000 })).then(
          () => true,
          () => false,
        );
        expect([from, state, signed]).toEqual([from, state, allowed[from]?.split(' ').includes(state)]);
      }
    }
  });

  it('lets a share fall only with a halt or a rollback', async () => {
    const bench = await setUp();
    await bench.install(bench.plan());
    await bench.propose(bench.plan({ state: 'halted', bp: 0 }));
    await bench.propose(bench.plan({ state: 'rolledback', bp: 0 }));
    await expect(bench.propose(bench.plan({ state: 'paused', bp: 0 }))).rejects.toEqual(conflict);
  });

  it('refuses an identifier that was used before, two plans for a model, and plans that vanish', async () => {
    const bench = await setUp();
    const [, b, c] = bench.entries;
    await bench.install(bench.plan());
    const next = bench.plan({ id: 'r-2', salt: 'ffeeddccbbaa9988', cand: c });
    await bench.install(next);
    bench.signer = createOnlineSigner({ signer: bench.key, platform: bench.platform, memory: bench.memory });
    await expect(bench.propose(bench.plan())).rejects.toEqual(conflict);
    await expect(bench.propose(next, { ...next, id: 'r-3' })).rejects.toEqual(conflict);
    await expect(bench.propose()).rejects.toEqual(refused);
    await bench.propose({ ...next, id: 'r-3', cand: b });
  });

  it('refuses targets, rollouts and snapshots that others signed, and older ones', async () => {
    const bench = await setUp();
    const first = await bench.install(bench.plan());
    const before = bench.targets;
    const thief = await createSigner(bench.platform);
    bench.targets = text(await signMetadata({ ...bench.publisher.targets, version: 99 }, [thief]));
    await expect(bench.propose(bench.plan())).rejects.toEqual(unsigned);
    bench.targets = before;
    await bench.sign();
    await bench.install(bench.plan({ bp: 2000 }));
    const { targets } = bench;
    bench.targets = before;
    await expect(bench.propose(bench.plan({ bp: 3000 }))).rejects.toEqual(refused);
    bench.targets = targets;

    const parts = { roots: bench.roots, targets };
    const version = 50;
    await expect(bench.signer.snapshot({ ...parts, version, rollout: first.rollout })).rejects.toEqual(
      refused,
    );
    const foreign = createRolloutTargets(bench.platform, {
      version: 40,
      expires: expiresIn(bench.platform.now(), 7),
      channels: { stable: [bench.plan({ bp: 2000 })] },
    });
    const rollout = text(await signMetadata(foreign, [thief]));
    await expect(bench.signer.snapshot({ ...parts, version, rollout })).rejects.toEqual(unsigned);
    const { inForce } = await bench.signer.public();
    if (!inForce) throw new Error('There is a set in force.');
    const stamp = (snapshot: string): Promise<string> =>
      bench.signer.timestamp({ ...parts, version, rollout: inForce.rollout, snapshot });
    await expect(stamp(first.snapshot)).rejects.toEqual(refused);
    const meta = { 'targets.json': describeFile(bench.platform, 3, toUtf8(targets)) };
    const expires = expiresIn(bench.platform.now(), 7);
    const forged = await signMetadata(createSnapshot({ version: 60, expires, meta }), [thief]);
    await expect(stamp(text(forged))).rejects.toEqual(unsigned);
    await stamp(inForce.snapshot);
  });

  it('follows the roots from the first it ever saw, and no others', async () => {
    const bench = await setUp();
    await bench.install(bench.plan());
    const other = await setUp();
    const thief = { ...bench, roots: other.roots, targets: other.targets };
    const forged = bench.signer.rollout({
      version: 50,
      roots: thief.roots,
      targets: thief.targets,
      channels: { stable: [] },
      before: '',
    });
    await expect(forged).rejects.toEqual(refused);
    for (const roots of [[], [...bench.roots, ...other.roots]]) {
      const asked = bench.signer.rollout({
        version: 50,
        roots,
        targets: bench.targets,
        channels: { stable: [] },
        before: '',
      });
      await expect(asked).rejects.toMatchObject({
        code: expect.stringMatching(/REFUSED|ROLLBACK|SIGNATURE/) as string,
      });
    }
  });

  it('refuses plans that were made from others than it signed', async () => {
    const bench = await setUp();
    const { rollout } = await bench.install(bench.plan());
    const propose = (before: string): Promise<string> =>
      bench.signer.rollout({
        version: 50,
        roots: bench.roots,
        targets: bench.targets,
        channels: { stable: [bench.plan({ bp: 9000 })] },
        before,
      });
    for (const before of ['', '{}', rollout.replace('"bp":1000', '"bp":9000')]) {
      await expect(propose(before)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
    }
    await propose(rollout);
  });

  it('refuses more plans than devices read', async () => {
    const bench = await setUp();
    const allow = Array.from({ length: 500 }, (_, i) => i.toString(16).padStart(32, '0'));
    const channels = Object.fromEntries(
      Array.from({ length: 100 }, (_, i) => [`channel-${i}`, [bench.plan({ allow })]]),
    );
    const asked = { version: 1, roots: bench.roots, targets: bench.targets, channels, before: '' };
    await expect(bench.signer.rollout(asked)).rejects.toEqual(refused);
  });

  it('refuses a policy that takes something back', async () => {
    const bench = await setUp();
    await bench.sign({ models: { digits: { floorSeq: 2, revoked: [1] } } });
    await bench.install(bench.plan({ base: null }));
    for (const digits of [{ floorSeq: 1, revoked: [1] }, { floorSeq: 2 }, {}]) {
      const before = bench.publisher.targets;
      await bench.sign({ models: { digits } });
      await expect(bench.propose(bench.plan({ base: null, bp: 2000 }))).rejects.toEqual(refused);
      bench.publisher.targets = before;
    }
  });

  it('brings nothing into force that it could not write down', async () => {
    const bench = await setUp();
    const before = await bench.install(bench.plan());
    bench.memory.fault = new StoreError('ERR_INLAY_STORE_FULL', 'There is no space left.');
    await expect(bench.install(bench.plan({ bp: 2000 }))).rejects.toBe(bench.memory.fault);
    expect((await bench.signer.public()).inForce).toEqual(before);
    bench.memory.fault = undefined;
    const after = await bench.install(bench.plan({ bp: 1500 }));
    await trust(bench, after);
  });

  it('remembers what is in force across a death, whoever got the answer', async () => {
    const bench = await setUp();
    await bench.install(bench.plan({ bp: 2000 }));
    bench.signer = createOnlineSigner({ signer: bench.key, platform: bench.platform, memory: bench.memory });
    await expect(bench.propose(bench.plan({ bp: 1999 }))).rejects.toEqual(conflict);
    expect((await bench.signer.public()).versions).toEqual({ timestamp: 1, snapshot: 1, rollout: 1 });
  });

  it('does not begin anew from notes that are damaged', async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, 'signer.json');
    const memory = openSignerMemory(path);
    const bench = await setUp();
    const open = (): OnlineSigner =>
      createOnlineSigner({ signer: bench.key, platform: bench.platform, memory });
    expect(await memory.read()).toBeUndefined();
    bench.signer = open();
    const set = await bench.install(bench.plan());
    expect((await open().public()).inForce).toEqual(set);
    const whole = await readFile(path, 'utf8');
    for (const damaged of [
      '',
      '{',
      'null',
      '[]',
      '{}',
      whole.slice(0, -10),
      whole.replace('"versions"', '"v"'),
    ]) {
      await writeFile(path, damaged);
      await expect(open().public()).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
    }
  });

  it('answers anything that comes over the pipe with a refusal', async () => {
    const bench = await setUp();
    await bench.install(bench.plan());
    const before = await bench.signer.public();
    const verb = fc.oneof(
      fc.constantFrom('rollout', 'snapshot', 'timestamp', 'sign', '__proto__'),
      fc.string(),
    );
    const field = fc.oneof(fc.jsonValue(), fc.constantFrom(bench.targets, [...bench.roots], 2, {}));
    const names = ['version', 'roots', 'targets', 'channels', 'rollout', 'snapshot', 'expires', '__proto__'];
    const body = fc.oneof(fc.jsonValue(), fc.dictionary(fc.constantFrom(...names), field));
    await fc.assert(
      fc.asyncProperty(verb, body, async (asked, content) => {
        const error = await ask(bench.signer, { verb: asked, body: content }).catch(
          (thrown: unknown) => thrown,
        );
        expect(error).toMatchObject({ name: expect.stringMatching(/^(Server|Trust|Store)Error$/) as string });
      }),
      { numRuns: 300 },
    );
    expect(await bench.signer.public()).toEqual(before);
    await expect(ask(bench.signer, null)).rejects.toEqual(refused);
  });
});

describe('a stolen online key', () => {
  /** Signs what it likes, as whoever has the key can. */
  async function forge(bench: Bench, plans: readonly unknown[], targets: string): Promise<SignedSet> {
    const { platform, key, roots } = bench;
    const expires = expiresIn(platform.now(), 3000);
    const rollout = text(
      await signMetadata(
        createRolloutTargets(platform, {
          version: 900,
          expires,
          channels: { stable: plans as readonly SignedPlan[] },
        }),
        [key],
      ),
    );
    const { version } = (JSON.parse(targets) as { signed: Targets }).signed;
    const meta = {
      'targets.json': describeFile(platform, version, toUtf8(targets)),
      'rollout.json': describeFile(platform, 900, toUtf8(rollout)),
    };
    const snapshot = text(await signMetadata(createSnapshot({ version: 900, expires, meta }), [key]));
    const pin = describeFile(platform, 900, toUtf8(snapshot));
    const timestamp = text(
      await signMetadata(createTimestamp({ version: 900, expires, snapshot: pin }), [key]),
    );
    return { roots, targets, rollout, snapshot, timestamp };
  }

  it('can choose among releases that the offline key signed and did not withdraw, and nothing else', async () => {
    const bench = await setUp();
    await bench.sign({ models: { digits: { floorSeq: 2, revoked: [3] } } });
    const [a, b, c] = bench.entries;
    const resolve = async (plan: SignedPlan): Promise<unknown> =>
      resolvePlan(await trust(bench, await forge(bench, [plan], bench.targets)), 'stable', 'digits');
    expect(await resolve(bench.plan({ base: null, bp: 10_000, state: 'complete' }))).toMatchObject({
      cand: b,
    });
    for (const [cand, code] of [
      [a, 'ERR_INLAY_WITHDRAWN'],
      [c, 'ERR_INLAY_WITHDRAWN'],
      [{ ...b, sha256: 'e'.repeat(64) }, 'ERR_INLAY_PLAN_INVALID'],
      [{ ...b, length: 1 }, 'ERR_INLAY_PLAN_INVALID'],
      [{ ...b, seq: 7 }, 'ERR_INLAY_PLAN_INVALID'],
      [{ ...b, path: 'models/digits/7/evil.onnx', seq: 7 }, 'ERR_INLAY_PLAN_INVALID'],
    ] as const) {
      await expect(resolve(bench.plan({ cand, base: null }))).rejects.toMatchObject({ code });
    }
    expect(await resolve(bench.plan({ base: a }))).toMatchObject({ base: null });
  });

  it('cannot sign targets', async () => {
    const bench = await setUp();
    const body: Targets = { ...bench.publisher.targets, version: 99, custom: {} };
    const targets = text(await signMetadata(body, [bench.key]));
    const set = await forge(bench, [bench.plan()], targets);
    await expect(trust(bench, set)).rejects.toEqual(unsigned);
  });
});

describe('the online key', () => {
  it('is sealed by a passphrase from its first day, and opened by that one only', async () => {
    const directory = await temporaryDirectory();
    const platform = testPlatform();
    const env = { INLAY_ONLINE_PASSPHRASE: 'correct horse' };
    const { keyid } = await openOnlineKey(directory, platform, env);
    const stored = await readFile(join(directory, 'online-key.json'), 'utf8');
    expect(stored).toContain('aes-256-gcm');
    expect(stored).not.toContain('private');
    expect((await openOnlineKey(directory, platform, env)).keyid).toBe(keyid);
    for (const wrong of [{}, { INLAY_ONLINE_PASSPHRASE: 'other' }]) {
      await expect(openOnlineKey(directory, platform, wrong)).rejects.toMatchObject({
        code: 'ERR_INLAY_UNAUTHORIZED',
      });
    }
  });

  it('may stay with a program, which is not believed', async () => {
    const directory = await temporaryDirectory();
    const platform = testPlatform();
    const program = join(directory, 'kms.mjs');
    await writeFile(
      program,
      `#!${process.execPath}
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
const file = ${JSON.stringify(join(directory, 'kms.pem'))};
if (!existsSync(file)) {
  writeFileSync(file, generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }));
}
const key = createPrivateKey(readFileSync(file));
const [first] = process.argv.slice(2);
if (first === 'public') {
  console.log(createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(-32).toString('hex'));
} else {
  const bytes = readFileSync(0);
  console.log(sign(null, process.env.KMS_LIES ? Buffer.from('other') : bytes, key).toString('hex'));
}
`,
    );
    await chmod(program, 0o755);
    const signer = await openOnlineKey(directory, platform, { INLAY_ONLINE_SIGN_COMMAND: program });
    const bytes = toUtf8('bytes');
    expect(await signer.sign(bytes)).toHaveLength(64);
    process.env['KMS_LIES'] = '1';
    try {
      await expect(signer.sign(bytes)).rejects.toMatchObject({ code: 'ERR_INLAY_SIGNATURE' });
    } finally {
      delete process.env['KMS_LIES'];
    }
    const missing = openOnlineKey(directory, platform, {
      INLAY_ONLINE_SIGN_COMMAND: join(directory, 'none'),
    });
    await expect(missing).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
  });
});
