import { Hono } from 'hono';
import { createDocument, documentPath } from '../api/document.ts';
import type { AdminVariables, Endpoint } from '../api/endpoint.ts';
import type { Gate } from '../auth.ts';
import { sendProblem } from '../respond.ts';

/** What the admin plane is made of. */
export interface AdminRoutesOptions {
  readonly endpoints: readonly Endpoint[];
  readonly gate: Pick<Gate, 'admin'>;
  /** Version of the server, for the document. */
  readonly version: string;
  /** Where the server is that signs, where this one does not. */
  readonly signsAt?: string | undefined;
}

/** Creates the routes below `/v1/admin`; all of them need a key, the document of the routes as well. */
export function createAdminRoutes(options: AdminRoutesOptions): Hono<{ Variables: AdminVariables }> {
  const { endpoints, gate, version, signsAt } = options;
  const routes = new Hono<{ Variables: AdminVariables }>();
  routes.use(async (c, next) => {
    await next();
    c.header('Cache-Control', 'no-store');
    c.header('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'");
  });
  routes.use(gate.admin);

  const document = createDocument(endpoints, version);
  routes.get(documentPath, (c) => c.json(document));
  for (const endpoint of endpoints) {
    const path = endpoint.path.replace(/\{(\w+)\}/g, ':$1');
    routes.on(endpoint.method.toUpperCase(), path, (c) => {
      if (!endpoint.signs || signsAt === undefined) return endpoint.serve(c);
      // RFC 9110 §15.5.20: sent to a server that cannot answer it.
      return sendProblem(
        c,
        421,
        'ERR_INLAY_REFUSED',
        `This replica holds no key that signs; send this to ${signsAt}.`,
      );
    });
  }
  return routes;
}
