import { fromUtf8 } from '../../../src/core/bytes.ts';
import type { Platform } from '../../../src/core/platform.ts';
import { readReport } from '../../../src/telemetry/report-reader.ts';
import type { Report, ReportWindow } from '../../../src/telemetry/report.ts';

/** A server in memory that takes reports as the real one does: each once, whatever order they come in. */
export interface ReportServer {
  readonly fetch: Platform['fetch'];
  /** Every report that counted. */
  readonly reports: Report[];
  /** Reports that came again. */
  duplicates(): number;
  /** Texts of all requests. */
  readonly bodies: string[];
  readonly headers: Headers[];
  readonly forgotten: string[];
  /** Seconds between reports that it asks for. */
  next: number | undefined;
  /** Answers in its place where it returns something: before the reports count, or after. */
  before: (path: string) => Response | undefined | Promise<Response | undefined>;
  after: () => void | Promise<void>;
  windows(): ReportWindow[];
  /** Sum of the calls in all windows. */
  calls(): number;
}

/** Numbers that are remembered below the highest one, for each device and epoch (RFC 4303 §3.4.3 does so as well). */
const WINDOW = 128;

export function createReportServer(
  rest: Platform['fetch'] = () => Promise.reject(new TypeError('fetch failed')),
): ReportServer {
  const seen = new Map<string, { hi: number; readonly had: Set<number> }>();
  let duplicates = 0;
  const isNew = ({ dev, epoch, seq }: Report): boolean | undefined => {
    const known = seen.get(`${dev} ${epoch}`) ?? { hi: -1, had: new Set<number>() };
    seen.set(`${dev} ${epoch}`, known);
    if (seq <= known.hi - WINDOW) return undefined;
    if (known.had.has(seq)) return false;
    known.had.add(seq);
    known.hi = Math.max(known.hi, seq);
    return true;
  };
  const server: ReportServer = {
    reports: [],
    bodies: [],
    headers: [],
    forgotten: [],
    next: undefined,
    before: () => undefined,
    after: () => {},
    duplicates: () => duplicates,
    windows: () => server.reports.flatMap(({ win }) => win),
    calls: () => server.windows().reduce((sum, { n }) => sum + n, 0),
    fetch: async (url, init) => {
      const path = url.replace('https://sync.test', '');
      if (path !== '/v1/reports' && path !== '/v1/forget') return rest(url, init);
      const text = await textOf(init?.body as Uint8Array<ArrayBuffer>);
      const replaced = await server.before(path);
      if (replaced) return replaced;
      if (path === '/v1/forget') {
        server.forgotten.push((JSON.parse(text) as { dev: string }).dev);
        return new Response(null, { status: 204 });
      }
      server.bodies.push(text);
      server.headers.push(new Headers(init?.headers));
      const done: object[] = [];
      const refused: object[] = [];
      for (const one of (JSON.parse(text) as { reports: unknown[] }).reports) {
        const { report, problem } = readReport(one);
        if (report === undefined) throw new Error(`A report is malformed: ${problem}.`);
        const { epoch, seq } = report;
        const fresh = isNew(report);
        if (fresh === undefined) refused.push({ epoch, seq, code: 'too_old' });
        else done.push({ epoch, seq });
        if (fresh === true) server.reports.push(report);
        if (fresh === false) duplicates += 1;
      }
      await server.after();
      return Response.json({ done, refused, ...(server.next !== undefined && { next: server.next }) });
    },
  };
  return server;
}

async function textOf(body: Uint8Array<ArrayBuffer>): Promise<string> {
  if (body[0] !== 0x1f) return fromUtf8(body);
  const plain = new Blob([body]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(plain).text();
}
