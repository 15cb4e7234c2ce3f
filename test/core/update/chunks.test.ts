import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import {
  createChunkSet,
  decodeNote,
  encodeNote,
  parseContentRange,
  strongTag,
} from '../../../src/update/chunks.ts';

describe('a set of pieces', () => {
  it('finds what is missing and what is there', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 100 }), (there) => {
        const set = createChunkSet(there.length);
        for (const [index, isThere] of there.entries()) if (isThere) set.add(index);
        const from = (wanted: boolean, at: number): number => {
          const found = there.indexOf(wanted, at);
          return found === -1 ? there.length : found;
        };
        for (const at of there.keys()) {
          expect(set.has(at)).toBe(there[at]);
          expect(set.missing(at)).toBe(from(false, at));
          expect(set.present(at)).toBe(from(true, at));
        }
        const copy = createChunkSet(there.length, set.toBytes());
        expect(copy.toBytes()).toEqual(set.toBytes());
        set.clear();
        expect(set.present(0)).toBe(there.length);
        expect(copy.missing(0)).toBe(from(false, 0));
      }),
    );
  });
});

describe('a note', () => {
  const chunks = { size: 1024 };

  it('is read as it was written', () => {
    const done = createChunkSet(20);
    for (const index of [0, 7, 8, 19]) done.add(index);
    const note = decodeNote(chunks, 20, encodeNote(chunks, { etag: '"a-1"', done }));
    expect(note.etag).toBe('"a-1"');
    expect(note.done.toBytes()).toEqual(done.toBytes());
  });

  it('counts as a beginning when it is of other pieces', () => {
    const done = createChunkSet(20);
    done.add(3);
    const bytes = encodeNote(chunks, { etag: undefined, done });
    expect(decodeNote({ size: 2048 }, 20, bytes).done.present(0)).toBe(20);
    expect(decodeNote(chunks, 30, bytes).done.present(0)).toBe(30);
    expect(decodeNote(chunks, 20, bytes).done.present(0)).toBe(3);
  });

  it.each([
    '',
    '{',
    'null',
    '[]',
    '{"v":1}',
    '{"v":1,"size":1024,"done":"zz"}',
    '{"v":1,"size":1024,"done":7}',
  ])('counts as a beginning when it is damaged: %s', (text) => {
    const { etag, done } = decodeNote(chunks, 20, toUtf8(text));
    expect([etag, done.present(0)]).toEqual([undefined, 20]);
  });

  it('never fails', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(40), (bytes, count) => {
        expect(decodeNote(chunks, count, bytes).done.count).toBe(count);
      }),
    );
  });

  it('sends no tag on that could break a header or is weak', () => {
    const done = createChunkSet(1);
    for (const etag of ['"a"\r\nx: y', 'W/"a"', 'a', '"']) {
      expect(decodeNote(chunks, 1, encodeNote(chunks, { etag, done })).etag).toBeUndefined();
      expect(strongTag(etag)).toBeUndefined();
    }
  });
});

it('reads the ranges of RFC 9110 §14.4 and nothing else', () => {
  expect(parseContentRange('bytes 5-9/10')).toEqual({ first: 5, last: 9, total: 10 });
  expect(parseContentRange('bytes 0-0/*')).toEqual({ first: 0, last: 0, total: undefined });
  for (const header of [null, '', 'bytes */10', 'bytes 9-5/10', 'bytes 5-/10', 'items 5-9/10', 'bytes 5-9']) {
    expect(parseContentRange(header)).toBeUndefined();
  }
});
