/** Whether the local functions of a model can be called. */

import type { FunctionProto, NodeProto } from './messages.ts';
import { labelOf } from './scope.ts';
import { bodiesOf } from './walk.ts';
import type { Report } from './validate.ts';

/** Checks how many values a node that calls a function passes and takes. */
export type ArityCheck = (node: NodeProto, path: string) => void;

type Identity = Pick<FunctionProto, 'domain' | 'name' | 'overload'>;

/** Makes what checks calls of functions. */
export function createArity(functions: readonly FunctionProto[], report: Report): ArityCheck {
  const byKey = new Map(functions.map((one) => [keyOf(one), one]));
  return (node, path) => {
    const called = byKey.size > 0 ? byKey.get(calleeOf(node)) : undefined;
    if (called === undefined) return;
    for (const [part, word] of [
      ['input', 'inputs'],
      ['output', 'outputs'],
    ] as const) {
      const has = called[part].length;
      if (node[part].length <= has) continue;
      report({
        severity: 'error',
        code: 'function-arity',
        path,
        message: `the node "${labelOf(node)}" has ${node[part].length} ${word}, but the function ${called.name ?? ''} has ${has}`,
      });
    }
  };
}

/** Checks that functions are told apart and end, and hands each body on. */
export function checkFunctions(
  functions: readonly FunctionProto[],
  report: Report,
  checkBody: (body: FunctionProto, path: string) => void,
): void {
  const indices = new Map<string, number>();
  for (const [i, one] of functions.entries()) {
    const path = `functions[${i}]`;
    const key = keyOf(one);
    if (indices.has(key)) {
      report({
        severity: 'error',
        code: 'function-duplicate',
        path,
        message: `the function "${one.name ?? ''}" is defined twice`,
      });
    }
    indices.set(key, i);
    checkBody(one, path);
  }
  for (const i of recursionsIn(functions.map(({ node }) => calleesIn(node, indices)))) {
    report({
      severity: 'error',
      code: 'function-recursive',
      path: `functions[${i}]`,
      message: `the function "${functions[i]?.name ?? ''}" calls itself, directly or through others`,
    });
  }
}

/** @returns the ends of back edges: one function for each cycle. Depth first, without recursion: chains are long. */
function recursionsIn(callees: readonly (readonly number[])[]): readonly number[] {
  const states = new Uint8Array(callees.length);
  const [OPEN, DONE] = [1, 2];
  const found = new Set<number>();
  for (const root of callees.keys()) {
    if (states[root] !== 0) continue;
    const path = [{ at: root, next: 0 }];
    states[root] = OPEN;
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const callee = callees[top.at]?.[top.next];
      top.next += 1;
      if (callee === undefined) {
        states[top.at] = DONE;
        path.pop();
      } else if (states[callee] === OPEN) found.add(callee);
      else if (states[callee] !== DONE) {
        states[callee] = OPEN;
        path.push({ at: callee, next: 0 });
      }
    }
  }
  return [...found].sort((a, b) => a - b);
}

function calleesIn(nodes: readonly NodeProto[], indices: ReadonlyMap<string, number>): number[] {
  const callees: number[] = [];
  const waiting = [nodes];
  for (let list = waiting.pop(); list !== undefined; list = waiting.pop()) {
    for (const node of list) {
      const index = indices.get(calleeOf(node));
      if (index !== undefined) callees.push(index);
      for (const body of bodiesOf(node)) waiting.push(body.node);
    }
  }
  return callees;
}

const keyOf = ({ domain, name = '', overload = '' }: Identity): string =>
  JSON.stringify([domain || 'ai.onnx', name, overload]);

const calleeOf = ({ domain, opType = '', overload = '' }: NodeProto): string =>
  keyOf({ ...(domain !== undefined && { domain }), name: opType, overload });
