import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  raiseFloor,
  removeRelease,
  reportFloor,
  revokeRelease,
} from '../../../src/publish/release-policy.ts';
import {
  addRelease,
  createTargets,
  findRelease,
  isWithdrawn,
  listReleases,
  nextSeq,
} from '../../../src/publish/release.ts';
import type { Targets } from '../../../src/trust/metadata.ts';
import { policyOf } from '../../../src/update/resolve.ts';

const expires = '2026-09-01T00:00:00Z';
const later = '2026-10-01T00:00:00Z';
const onlineKey = {
  keyid: 'a'.repeat(64),
  key: { keytype: 'ed25519', scheme: 'ed25519', keyval: { public: 'b'.repeat(64) } },
};

/** Targets with that many releases, versions 1, 2 … with a manifest each. */
function targetsWith(count: number, model = 'digits'): Targets {
  let targets = createTargets({ onlineKey, expires });
  for (let version = 1; version <= count; version += 1) {
    targets = addRelease(targets, {
      model,
      version: String(version),
      file: 'digits.onnx',
      length: version,
      sha256: version.toString(16).padStart(64, '0'),
      companions: [{ file: 'release.json', role: 'manifest', length: 9, sha256: 'c'.repeat(64) }],
      expires,
    }).targets;
  }
  return targets;
}

function releaseOf(targets: Targets, version: string): NonNullable<ReturnType<typeof findRelease>> {
  const release = findRelease(targets, 'digits', version);
  if (!release) throw new Error(`There is no version ${version}.`);
  return release;
}

describe('revokeRelease', () => {
  it('withdraws one release and says why', () => {
    const before = targetsWith(3);
    const after = revokeRelease(before, {
      release: releaseOf(before, '2'),
      reason: 'Too loud.',
      expires: later,
    });
    expect(after).toMatchObject({ version: before.version + 1, expires: later });
    expect(policyOf(after, 'digits')).toEqual({ floorSeq: 0, revoked: [2] });
    expect([1, 2, 3].map((seq) => isWithdrawn(after, 'digits', seq))).toEqual([false, true, false]);
    expect(after.targets['models/digits/2/digits.onnx']?.custom).toEqual({
      model: 'digits',
      version: '2',
      seq: 2,
      revokedBecause: 'Too loud.',
    });
    expect(Object.keys(after.targets)).toEqual(Object.keys(before.targets));
    expect(isWithdrawn(after, 'faces', 2)).toBe(false);
  });

  it('changes nothing the second time', () => {
    const before = targetsWith(2);
    const change = { release: releaseOf(before, '1'), expires };
    const after = revokeRelease(before, change);
    expect(revokeRelease(after, { ...change, reason: 'Once more.' })).toBe(after);
  });

  it('only ever adds to the list, and keeps the policies of other models', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 6 })), (versions) => {
        let targets: Targets = { ...targetsWith(6), custom: { models: { faces: { floorSeq: 4 } } } };
        let known: readonly number[] = [];
        for (const version of versions) {
          targets = revokeRelease(targets, { release: releaseOf(targets, String(version)), expires });
          const { revoked } = policyOf(targets, 'digits');
          expect(revoked).toEqual(expect.arrayContaining([...known]));
          expect(new Set(revoked).size).toBe(revoked.length);
          known = revoked;
        }
        expect(known).toEqual([...new Set(versions)].sort((a, b) => a - b));
        expect(policyOf(targets, 'faces')).toEqual({ floorSeq: 4, revoked: [] });
      }),
      { numRuns: 30 },
    );
  });
});

describe('raiseFloor', () => {
  it('withdraws every release before one', () => {
    const before = targetsWith(3);
    const after = raiseFloor(before, { release: releaseOf(before, '3'), expires });
    expect([1, 2, 3].map((seq) => isWithdrawn(after, 'digits', seq))).toEqual([true, true, false]);
    expect(raiseFloor(after, { release: releaseOf(after, '3'), expires })).toBe(after);
  });

  it('refuses to let it fall', () => {
    const before = targetsWith(3);
    const after = raiseFloor(before, { release: releaseOf(before, '3'), expires });
    expect(() => raiseFloor(after, { release: releaseOf(after, '2'), expires })).toThrow(
      'The floor of digits cannot fall to 2: it is 3, and only rises.',
    );
  });

  it('leaves revocations as they are', () => {
    const before = targetsWith(3);
    const revoked = revokeRelease(before, { release: releaseOf(before, '1'), expires });
    const after = raiseFloor(revoked, { release: releaseOf(before, '2'), expires });
    expect(policyOf(after, 'digits')).toEqual({ floorSeq: 2, revoked: [1] });
  });
});

describe('reportFloor', () => {
  const reportOf = (versions: readonly string[], floor: string, revoked: readonly string[] = []) => {
    let targets = createTargets({ onlineKey, expires });
    for (const [at, version] of versions.entries()) {
      const sha256 = at.toString(16).padStart(64, '0');
      const added = { model: 'digits', version, file: 'digits.onnx', length: 1, sha256, expires };
      targets = addRelease(targets, added).targets;
    }
    for (const version of revoked)
      targets = revokeRelease(targets, { release: releaseOf(targets, version), expires });
    const release = releaseOf(targets, floor);
    return reportFloor(raiseFloor(targets, { release, expires }), release);
  };

  it.each([
    [['1.0.0', '1.2.0', '1.1.0'], '1.1.0', { withdrawn: ['1.0.0', '1.2.0'], staying: [] }],
    [['1.1.0', '0.9.0', '1.0.1', '1.10.0'], '1.1.0', { withdrawn: [], staying: ['0.9.0', '1.0.1'] }],
    [
      ['2.0', '2.0.0-beta.1', '2.0.0', 'v1', 'nightly'],
      '2.0',
      { withdrawn: [], staying: ['2.0.0-beta.1', 'v1'] },
    ],
    [['summer', 'autumn', '1'], 'summer', { withdrawn: [], staying: [] }],
  ])('tells of %j what a floor of %s withdraws, and what stays', (versions, floor, report) => {
    expect(reportOf(versions, floor)).toEqual(report);
  });

  it('does not say that a revoked release stays', () => {
    expect(reportOf(['1.1.0', '0.9.0', '1.0.1'], '1.1.0', ['0.9.0'])).toEqual({
      withdrawn: [],
      staying: ['1.0.1'],
    });
  });
});

describe('removeRelease', () => {
  it('takes a release off the list, with all its files', () => {
    const before = targetsWith(3);
    const after = removeRelease(before, { release: releaseOf(before, '2'), expires });
    expect(listReleases(after).map(({ version }) => version)).toEqual(['1', '3']);
    expect(Object.keys(after.targets).some((path) => path.includes('/2/'))).toBe(false);
  });

  it('keeps a withdrawn one, whose content could be published again', () => {
    const before = targetsWith(3);
    const revoked = revokeRelease(before, { release: releaseOf(before, '2'), expires });
    const raised = raiseFloor(before, { release: releaseOf(before, '3'), expires });
    for (const targets of [revoked, raised]) {
      const release = releaseOf(targets, '2');
      expect(() => removeRelease(targets, { release, expires })).toThrow('Version 2 of digits is withdrawn');
      const same = {
        model: 'digits',
        version: '9',
        file: 'a.onnx',
        length: 2,
        sha256: release.sha256,
        expires,
      };
      for (const version of ['9', '2']) {
        expect(() => addRelease(targets, { ...same, version })).toThrow(
          `Version ${version} of model digits has the content of 2, which is withdrawn for good`,
        );
      }
      expect(addRelease(targets, { ...same, model: 'faces' }).seq).toBe(1);
    }
  });

  it('leaves what is in force when the same content is withdrawn under another version', () => {
    const before = targetsWith(1);
    const { sha256 } = releaseOf(before, '1');
    const same = { model: 'digits', version: '2', file: 'a.onnx', length: 1, sha256, expires };
    const twice = addRelease(before, same).targets;
    const after = revokeRelease(twice, { release: releaseOf(twice, '1'), expires });
    expect(addRelease(after, same).targets).toBe(after);
  });

  it('keeps the newest one, whose number would be given out again', () => {
    const before = targetsWith(2);
    expect(() => removeRelease(before, { release: releaseOf(before, '2'), expires })).toThrow('inlay revoke');
  });
});

describe('nextSeq', () => {
  it('never gives a number out again', () => {
    const before = targetsWith(3);
    const custom = { models: { digits: { floorSeq: 5, revoked: [7] } } };
    expect(nextSeq(before, 'digits')).toBe(4);
    expect(nextSeq({ ...before, custom }, 'digits')).toBe(8);
    expect(nextSeq(before, 'faces')).toBe(1);
    expect(nextSeq({ ...before, targets: {} }, 'digits')).toBe(1);
  });
});
