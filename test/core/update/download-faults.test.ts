import fc from 'fast-check';
import { expect, it } from 'vitest';
import { equalBytes } from '../../../src/core/bytes.ts';
import { isInlayError } from '../../../src/core/errors.ts';
import type { Platform } from '../../../src/core/platform.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { downloadTarget } from '../../../src/update/download.ts';
import { blobsIn } from '../../conformance/store.ts';
import { testPlatform } from '../platform.ts';
import { chunksOf, randomBytes, refOf } from './download-files.ts';

const size = 1024;
const content = randomBytes(9 * size + 100);
const target = refOf(content);
const url = 'https://sync.test';

/** What happens to one request; bytes are counted from the first one that it sends. */
interface Fault {
  readonly kind:
    | 'none'
    | 'drop'
    | 'end'
    | 'whole'
    | 'spoil'
    | 'status'
    | 'shift'
    | 'other'
    | 'less'
    | 'refuse';
  readonly at: number;
}
const fault = fc.record<Fault>({
  kind: fc.constantFrom<Fault['kind']>(
    'none',
    'drop',
    'drop',
    'end',
    'whole',
    'spoil',
    'status',
    'shift',
    'other',
    'less',
    'refuse',
  ),
  at: fc.nat(content.length),
});

/** A server to which these things happen, in turn, and then nothing any more. */
function faulty(faults: readonly Fault[], onBytes: (count: number) => void): Platform['fetch'] {
  let turn = 0;
  return async (_, init) => {
    const { kind, at: place } = faults[turn] ?? { kind: 'none', at: 0 };
    turn += 1;
    const headers = new Headers(init?.headers);
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.get('range') ?? '') ?? [];
    if (kind === 'status') return new Response(null, { status: 503 });
    if (kind === 'refuse') return new Response(null, { status: 416 });
    const isPart = first !== undefined && kind !== 'whole' && kind !== 'other';
    const from = isPart ? Number(first) : 0;
    let to = isPart ? Number(last) + 1 : content.length;
    if (kind === 'less') to = Math.max(from + 1, to - (place % 2000));
    const bytes = kind === 'other' ? randomBytes(content.length, place) : content.slice();
    if (kind === 'spoil')
      bytes[from + (place % (to - from))] = (bytes[from + (place % (to - from))] ?? 0) ^ 1;
    const end = kind === 'drop' || kind === 'end' ? Math.min(to, from + place) : to;
    let at = from;
    const body = new ReadableStream<Uint8Array>(
      {
        pull: (controller) => {
          const piece = bytes.slice(at, Math.min(at + 700, end));
          at += piece.length;
          onBytes(piece.length);
          if (piece.length > 0) controller.enqueue(piece);
          else if (kind === 'drop' && end < to) controller.error(new TypeError('terminated'));
          else controller.close();
        },
      },
      { highWaterMark: 0 },
    );
    const shift = kind === 'shift' ? 1 : 0;
    return new Response(body, {
      status: isPart ? 206 : 200,
      headers: {
        ...(place % 3 > 0 && { etag: '"one"' }),
        ...(isPart && { 'content-range': `bytes ${from + shift}-${to - 1}/${content.length}` }),
      },
    });
  };
}

const hasContent = async (store: Store): Promise<boolean> =>
  equalBytes((await (await store.blob(target.sha256))?.bytes()) ?? new Uint8Array(), content);

it.each([
  ['with', chunksOf(content, size)],
  ['without', { size }],
])(
  'a download %s hashes of its pieces ends in the right bytes or a typed error, whatever happens to it',
  async (_, chunks) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fault, { maxLength: 12 }),
        fc.integer({ min: 1, max: 4 }),
        async (faults, attempts) => {
          const store = createMemoryStore();
          let bytes = 0;
          const fetch = faulty(faults, (count) => {
            bytes += count;
          });
          const device = testPlatform({ fetch });
          // Waits are over at once; the silence of a server never is.
          const setTimer: Platform['setTimer'] = (task, _delayMs, keepAlive) => {
            if (keepAlive === true) queueMicrotask(task);
            return () => {};
          };
          const download = (): Promise<unknown> =>
            downloadTarget({
              platform: { ...device, setTimer },
              store,
              url,
              target,
              chunks,
              attempts: { attempts, baseMs: 1, capMs: 10 },
            }).catch((error: unknown) => error);
          // Each failure takes at least one of the faults with it.
          for (let calls = 0; !(await hasContent(store)); calls += 1) {
            expect(calls).toBeLessThanOrEqual(faults.length);
            const outcome = await download();
            if (await hasContent(store)) break;
            expect(isInlayError(outcome)).toBe(true);
            expect(await blobsIn(store)).toEqual([]);
          }
          expect(bytes).toBeLessThanOrEqual((faults.length + 2) * (content.length + 700));
        },
      ),
      { numRuns: 400 },
    );
  },
);
