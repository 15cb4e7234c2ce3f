/**
 * Stands in for `vitest` where vitest does not run: the part of its API that the suites use, with its own `expect`. A
 * bundle for another runtime gets this module by that name.
 */
import {
  ASYMMETRIC_MATCHERS_OBJECT,
  chai,
  customMatchers,
  JestAsymmetricMatchers,
  JestChaiExpect,
  JestExtend,
} from '@vitest/expect';

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);
const extensible = chai.expect as typeof chai.expect & { extend(expect: unknown, matchers: object): void };
extensible.extend(chai.expect, customMatchers);

/** As in the configuration of vitest. */
const POLL = { interval: 50, timeout: 1000 };

/** Repeats an assertion until it holds. */
function poll(read: () => unknown, options: Partial<typeof POLL> = {}): object {
  const { interval, timeout } = { ...POLL, ...options };
  const path: string[] = [];
  const assertion: object = new Proxy(() => {}, {
    get: (_, key) => {
      path.push(String(key));
      return assertion;
    },
    apply: async (_, __, args: unknown[]) => {
      const deadline = Date.now() + timeout;
      for (;;) {
        try {
          let object: unknown = chai.expect(await read());
          for (const key of path.slice(0, -1)) object = (object as Record<string, unknown>)[key];
          (object as Record<string, (...rest: unknown[]) => void>)[path.at(-1) as string]?.(...args);
          return;
        } catch (error) {
          if (Date.now() > deadline) throw error;
        }
        await new Promise((resolve) => {
          setTimeout(resolve, interval);
        });
      }
    },
  });
  return assertion;
}

/** The assertions of vitest. */
export const expect: unknown = Object.assign(
  (value: unknown, message?: string) => chai.expect(value, message),
  chai.expect,
  (globalThis as Record<symbol, unknown>)[ASYMMETRIC_MATCHERS_OBJECT],
  { poll },
);

/** One case, as it ended. */
export interface Case {
  readonly file: string;
  /** Titles of the suites around it, outermost first, and its own. */
  readonly path: readonly string[];
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** What it failed of, with its stack. */
  readonly error?: string;
}

/** What a case is given. */
interface Context {
  readonly skip: (reason?: string) => never;
  readonly onTestFinished: (task: Task) => void;
}

type Task = () => unknown;
type Body = (context: Context) => unknown;

interface Options {
  readonly timeout?: number;
}

interface Test {
  readonly title: string;
  readonly body: Body;
  readonly timeoutMs: number;
  readonly isSkipped: boolean;
}

interface Suite {
  readonly title: string;
  readonly isSkipped: boolean;
  readonly members: (Suite | Test)[];
  readonly hooks: Record<'beforeAll' | 'afterAll' | 'beforeEach' | 'afterEach', Task[]>;
}

function createSuite(title: string, isSkipped: boolean): Suite {
  return {
    title,
    isSkipped,
    members: [],
    hooks: { beforeAll: [], afterAll: [], beforeEach: [], afterEach: [] },
  };
}

/** As in the configuration of vitest. */
const TIMEOUT_MS = 30_000;

let current = createSuite('', false);
let finishing: Task[] = [];
class Skipped extends Error {}

function addTest(isSkipped: boolean) {
  return (title: string, ...rest: readonly (Body | Options | number | undefined)[]): void => {
    const body = rest.find((part) => typeof part === 'function');
    const limit = rest.find((part) => typeof part === 'number' || typeof part === 'object');
    const timeoutMs = (typeof limit === 'object' ? limit.timeout : limit) ?? TIMEOUT_MS;
    if (body === undefined) throw new TypeError(`The test "${title}" has no function.`);
    current.members.push({ title, body, timeoutMs, isSkipped });
  };
}

function addSuite(isSkipped: boolean) {
  return (title: string, ...rest: readonly ((() => unknown) | Options)[]): void => {
    const outer = current;
    const suite = createSuite(title, isSkipped || outer.isSkipped);
    outer.members.push(suite);
    current = suite;
    const made = rest.find((part) => typeof part === 'function')?.();
    current = outer;
    if (made instanceof Promise) throw new TypeError(`The suite "${title}" is asynchronous.`);
  };
}

type Adder = (title: string, body: (...args: unknown[]) => unknown, limit?: Options | number) => void;

function withVariants(create: (isSkipped: boolean) => Adder) {
  const add = create(false);
  return Object.assign(add, {
    skip: create(true),
    skipIf: (condition: unknown) => create(Boolean(condition)),
    runIf: (condition: unknown) => create(!condition),
    each:
      (rows: readonly unknown[]) =>
      (title: string, body: (...args: unknown[]) => unknown, limit?: Options | number): void => {
        for (const [index, row] of rows.entries()) {
          const args = Array.isArray(row) ? row : [row];
          add(formatTitle(title, args, index), () => body(...args), limit);
        }
      },
  });
}

export const it: ReturnType<typeof withVariants> = withVariants(addTest);
export const describe: ReturnType<typeof withVariants> = withVariants(
  addSuite as (isSkipped: boolean) => Adder,
);

export function beforeAll(task: Task): void {
  current.hooks.beforeAll.push(task);
}
export function afterAll(task: Task): void {
  current.hooks.afterAll.push(task);
}
export function beforeEach(task: Task): void {
  current.hooks.beforeEach.push(task);
}
export function afterEach(task: Task): void {
  current.hooks.afterEach.push(task);
}
export function onTestFinished(task: Task): void {
  finishing.push(task);
}

/** Types are compared by the compiler; at run time every comparison holds. */
export function expectTypeOf(): unknown {
  const anything: object = new Proxy(() => anything, { get: () => anything });
  return anything;
}

const stubbed = new Map<string, PropertyDescriptor | undefined>();

/** Stand-ins for what is global. */
export const vi = {
  stubGlobal: (name: string, value: unknown): void => {
    if (!stubbed.has(name)) stubbed.set(name, Object.getOwnPropertyDescriptor(globalThis, name));
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  },
  unstubAllGlobals: (): void => {
    for (const [name, descriptor] of stubbed) {
      if (descriptor === undefined) Reflect.deleteProperty(globalThis, name);
      else Object.defineProperty(globalThis, name, descriptor);
    }
    stubbed.clear();
  },
};

/** Fills vitest's placeholders in: `%s`, `%i`, `%d`, `%f`, `%j`, `%o`, `%#` and `$name`. */
function formatTitle(title: string, args: readonly unknown[], index: number): string {
  let next = 0;
  const row = args[0];
  return title
    .replace(/%([sidfjo#%])/g, (_, kind: string) => {
      if (kind === '%') return '%';
      if (kind === '#') return String(index);
      const value = args[next];
      next += 1;
      return kind === 'j' || kind === 'o' ? toJson(value) : String(value);
    })
    .replace(/\$(\w+)/g, (whole, key: string) =>
      typeof row === 'object' && row !== null && key in row
        ? String((row as Record<string, unknown>)[key])
        : whole,
    );
}

function toJson(value: unknown): string {
  const text = JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? `${part}n` : part));
  return text ?? String(value);
}

/**
 * Collects the suites of each file and runs them, one after the other.
 * @param files - path and loader of each.
 * @param report - is told of each case when it has ended.
 */
export async function play(
  files: readonly (readonly [path: string, load: () => Promise<unknown>])[],
  report: (result: Case) => unknown,
): Promise<void> {
  for (const [file, load] of files) {
    const root = createSuite('', false);
    current = root;
    try {
      await load();
    } catch (error) {
      await report({ file, path: ['loads'], outcome: 'failed', error: describeError(error) });
      continue;
    }
    await runSuite(root, [], [], async (path, outcome, error) => {
      await report({ file, path, outcome, ...(error !== undefined && { error: describeError(error) }) });
    });
  }
}

type Tell = (path: readonly string[], outcome: Case['outcome'], error?: unknown) => Promise<void>;

async function runSuite(
  suite: Suite,
  around: readonly Suite[],
  path: readonly string[],
  tell: Tell,
): Promise<void> {
  const chain = [...around, suite];
  const failed: unknown[] = [];
  if (!suite.isSkipped) {
    for (const hook of suite.hooks.beforeAll) await attempt(hook, failed);
  }
  for (const member of suite.members) {
    const memberPath = [...path, member.title];
    if ('members' in member) {
      await runSuite(member, chain, memberPath, tell);
    } else if (suite.isSkipped || member.isSkipped) {
      await tell(memberPath, 'skipped');
    } else if (failed.length > 0) {
      await tell(memberPath, 'failed', failed[0]);
    } else {
      await runTest(member, chain, memberPath, tell);
    }
  }
  const atEnd: unknown[] = [];
  if (!suite.isSkipped) {
    for (const hook of [...suite.hooks.afterAll].reverse()) await attempt(hook, atEnd);
  }
  if (atEnd.length > 0) await tell([...path, 'cleans up'], 'failed', atEnd[0]);
}

async function runTest(
  test: Test,
  chain: readonly Suite[],
  path: readonly string[],
  tell: Tell,
): Promise<void> {
  const errors: unknown[] = [];
  finishing = [];
  const skip = (reason?: string): never => {
    throw new Skipped(reason);
  };
  for (const hook of chain.flatMap(({ hooks }) => hooks.beforeEach)) await attempt(hook, errors);
  if (errors.length === 0) {
    await attempt(() => inTime(Promise.resolve(test.body({ skip, onTestFinished })), test.timeoutMs), errors);
  }
  const after = [...chain].reverse().flatMap(({ hooks }) => [...hooks.afterEach].reverse());
  for (const hook of after) await attempt(hook, errors);
  for (const task of [...finishing].reverse()) await attempt(task, errors);
  if (errors[0] instanceof Skipped) await tell(path, 'skipped');
  else if (errors.length > 0) await tell(path, 'failed', errors[0]);
  else await tell(path, 'passed');
}

async function attempt(task: Task, errors: unknown[]): Promise<void> {
  try {
    await task();
  } catch (error) {
    errors.push(error);
  }
}

async function inTime<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`It took more than ${timeoutMs} ms.`));
    }, timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function describeError(error: unknown): string {
  if (!(error instanceof Error)) return `Thrown: ${String(error)}`;
  const { message, stack = '' } = error;
  return stack.includes(message) ? stack : `${error.name}: ${message}\n${stack}`;
}
