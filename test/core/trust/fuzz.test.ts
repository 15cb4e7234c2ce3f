import fc from 'fast-check';
import { beforeAll, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../../src/core/bytes.ts';
import { TrustError } from '../../../src/core/errors.ts';
import { createTrustedMetadata, type TrustedMetadata } from '../../../src/trust/client.ts';
import { createSimulator, type Simulator } from './simulator.ts';

let repo: Simulator;
let files: Record<Kind, Uint8Array>;
type Kind = (typeof kinds)[number];
const kinds = ['root', 'timestamp', 'snapshot', 'targets', 'team'] as const;

beforeAll(async () => {
  repo = await createSimulator();
  await repo.delegate('targets', 'team', { path_hash_prefixes: ['3b', 'f'] });
  await repo.delegate('team', 'member', { paths: ['a/*', 'b?'] });
  await repo.addTarget('targets', 'a/b', toUtf8('content'));
  await repo.publish('member', 'team', 'root', 'targets', 'snapshot', 'timestamp');
  const file = (name: string): Uint8Array => repo.files.get(name) ?? new Uint8Array();
  files = {
    root: file('2.root.json'),
    timestamp: file('timestamp.json'),
    snapshot: file('2.snapshot.json'),
    targets: file('2.targets.json'),
    team: file('1.team.json'),
  };
});

const updates: Record<Kind, (trusted: TrustedMetadata, bytes: Uint8Array) => Promise<unknown>> = {
  root: (trusted, bytes) => trusted.updateRoot(bytes),
  timestamp: (trusted, bytes) => trusted.updateTimestamp(bytes),
  snapshot: (trusted, bytes) => trusted.updateSnapshot(bytes),
  targets: (trusted, bytes) => trusted.updateTargets(bytes),
  team: (trusted, bytes) => trusted.updateDelegated('targets', 'team', bytes),
};
const update = (trusted: TrustedMetadata, kind: Kind, bytes: Uint8Array): Promise<unknown> =>
  updates[kind](trusted, bytes);

const open = (stored?: Record<string, string>): Promise<TrustedMetadata> => {
  const root = repo.files.get('1.root.json') ?? new Uint8Array();
  return createTrustedMetadata({ platform: repo.platform, root, ...(stored && { stored }) });
};

/** A set that is ready to take a file of this kind. */
const openBefore = async (kind: Kind): Promise<TrustedMetadata> => {
  const trusted = await open();
  for (const earlier of kinds.slice(0, kinds.indexOf(kind))) await update(trusted, earlier, files[earlier]);
  return trusted;
};

interface Edit {
  readonly at: number;
  readonly removed: number;
  readonly added: Uint8Array;
}
const edits = fc.array(
  fc.record({
    at: fc.nat(5000),
    removed: fc.nat(3),
    added: fc.oneof(
      fc.uint8Array({ maxLength: 4 }),
      fc
        .constantFrom('"', '{', '}', '[', ']', ',', ':', '0', '-', '1e9', 'null', '\\u0000', '{}')
        .map(toUtf8),
    ),
  }),
  { minLength: 1, maxLength: 3 },
);

function edited(bytes: Uint8Array, changes: readonly Edit[]): Uint8Array {
  const content = [...bytes];
  for (const { at, removed, added } of changes) content.splice(at % (content.length + 1), removed, ...added);
  return Uint8Array.from(content);
}

const meaningOf = (bytes: Uint8Array): unknown => {
  const { signed } = JSON.parse(fromUtf8(bytes)) as { signed: unknown };
  return signed;
};

it.each(kinds)(
  'takes nothing that was changed for %s, throws nothing but TrustError, and stays as it was',
  async (kind) => {
    let trusted = await openBefore(kind);
    const before = trusted.export();
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(edits, async (changes) => {
        const bytes = edited(files[kind], changes);
        try {
          await update(trusted, kind, bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(TrustError);
          expect(trusted.export()).toEqual(before);
          refused += 1;
          return;
        }
        // White space may change, and what nobody signs.
        expect(meaningOf(bytes)).toEqual(meaningOf(files[kind]));
        trusted = await openBefore(kind);
      }),
      { numRuns: 2500 },
    );
    expect(refused).toBeGreaterThan(2000);
  },
);

it('starts from any store, and takes the intact files from there', async () => {
  const trusted = await openBefore('team');
  await update(trusted, 'team', files.team);
  const stored = trusted.export();
  expect(Object.keys(stored)).toEqual(['root.2', 'timestamp', 'snapshot', 'targets', 'delegated/team']);
  const keys = fc.constantFrom(...Object.keys(stored), '__proto__', 'root.3', 'delegated/', 'rollout');
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(keys, edits), { maxLength: 4 }), async (damages) => {
      const damaged = { ...stored };
      for (const [key, changes] of damages) {
        const bytes = edited(toUtf8(damaged[key] ?? stored['targets'] ?? ''), changes);
        damaged[key] = new TextDecoder().decode(bytes);
      }
      const again = await open(damaged);
      if (again.root.version === 1) await update(again, 'root', files.root);
      for (const kind of kinds.slice(1)) await update(again, kind, files[kind]);
      again.assertCurrent();
      expect(again.delegated('targets', 'team')).toBeDefined();
    }),
    { numRuns: 1000 },
  );
});
