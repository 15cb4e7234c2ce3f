/** Asks the admin API. Every answer is as `server/api/answers.ts` has it. */

/** An answer that takes longer does not come, milliseconds. */
const LONGEST_MS = 30_000;

/** What an answer was, when it was none of success. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The admin API, with the key of this tab. */
export interface Api {
  get<Answer>(path: string, query?: Readonly<Record<string, string | number | undefined>>): Promise<Answer>;
  send<Answer>(method: 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown): Promise<Answer>;
}

/** Creates the client of the API. */
export function createApi(key: string): Api {
  const ask = async <Answer>(path: string, method = 'GET', body?: unknown): Promise<Answer> => {
    let response: Response;
    try {
      response = await fetch(`/v1/admin${path}`, {
        method,
        signal: AbortSignal.timeout(LONGEST_MS),
        headers: {
          authorization: `Bearer ${key}`,
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
    } catch {
      throw new ApiError(
        0,
        'ERR_INLAY_NETWORK',
        'The server cannot be reached; see whether `inlay server` runs, and this page goes on by itself.',
      );
    }
    const text = await response.text();
    const value: unknown = text === '' ? undefined : parse(text);
    if (response.ok) return value as Answer;
    const { code = '', message } = (value ?? {}) as { code?: string; message?: string };
    throw new ApiError(response.status, code, message ?? `The server answered ${response.status}.`);
  };
  return {
    get: (path, query = {}) => {
      const asked = new URLSearchParams();
      for (const [name, value] of Object.entries(query))
        if (value !== undefined) asked.set(name, String(value));
      return ask(asked.size > 0 ? `${path}?${asked}` : path);
    },
    send: (method, path, body) => ask(path, method, body),
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
