import { nameOf } from '../core/tensor.ts';
import type { TensorSpec } from '../core/signature.ts';
import type { FunctionStep, ModelStep, PipelineDefinition } from './pipeline-definition.ts';

/** A name that a step has for a value, and the value. */
export interface Port {
  readonly name: string;
  /** Index of the value. */
  readonly value: number;
}

/** A step of a {@link Graph}. */
export interface GraphStep {
  readonly name: string;
  readonly definition: FunctionStep | ModelStep;
  readonly takes: readonly Port[];
  readonly gives: readonly Port[];
  /** Value whose elements it runs on one by one. */
  readonly each: number | undefined;
}

/** A checked definition. Values are numbered. */
export interface Graph {
  /** Every step after those that it needs. */
  readonly steps: readonly GraphStep[];
  readonly valueNames: readonly string[];
  readonly inputs: ReadonlyMap<string, number>;
  readonly outputs: ReadonlyMap<string, number>;
}

/** The steps that some outputs need. */
export interface Plan {
  readonly steps: readonly GraphStep[];
  /** Steps that each step waits for, by position. */
  readonly waits: readonly number[];
  /** Positions of the steps that wait for each step. */
  readonly followers: readonly (readonly number[])[];
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** Whether several runs of one call may be under way at once. */
  readonly forks: boolean;
}

/**
 * Checks a definition.
 * @throws `TypeError` that names the step: for names that nothing gives, values that two steps give, steps that wait
 * for each other, and inputs or outputs that a model does not have. `RangeError` for a bound that is none.
 */
export function buildGraph({ inputs, steps, outputs }: PipelineDefinition): Graph {
  const valueNames: string[] = [];
  const values = new Map<string, number>();
  const givers = new Map<number, string | undefined>();
  const valueOf = (name: string): number => {
    let value = values.get(name);
    if (value === undefined) {
      value = valueNames.push(name) - 1;
      values.set(name, value);
    }
    return value;
  };

  for (const name of inputs ?? []) givers.set(valueOf(name), undefined);
  const unsorted = Object.entries(steps).map(([name, step]) => toStep(name, step, valueOf));
  if (unsorted.length === 0) throw new TypeError('A pipeline has at least one step.');
  for (const { name, gives } of unsorted) {
    for (const { value } of gives) {
      if (givers.has(value)) {
        const other = givers.get(value);
        throw new TypeError(
          other === undefined
            ? `Step "${name}" gives "${valueNames[value]}", which is an input of the pipeline; give it another name.`
            : `Steps "${other}" and "${name}" both give "${valueNames[value]}"; give one of them another name.`,
        );
      }
      givers.set(value, name);
    }
  }
  const inferred = new Map<string, number>();
  for (const { name, takes } of unsorted) {
    for (const { value } of takes) {
      if (givers.has(value)) continue;
      const valueName = valueNames[value] as string;
      if (inputs !== undefined) {
        const known = [...givers.keys()].map((index) => valueNames[index] as string);
        throw new TypeError(
          `Step "${name}" needs "${valueName}", which is no input and which no step gives; there are ${quote(known)}.`,
        );
      }
      inferred.set(valueName, value);
    }
  }
  const inputMap =
    inputs === undefined ? inferred : new Map(inputs.map((name) => [name, valueOf(name)] as const));
  if (!Array.isArray(outputs) || outputs.length === 0) {
    throw new TypeError('A pipeline has at least one output; name the values that a call returns.');
  }
  const outputMap = new Map<string, number>();
  for (const name of outputs) {
    const value = values.get(name);
    if (value === undefined || !(givers.has(value) || inputMap.has(name))) {
      throw new TypeError(`The pipeline returns "${name}", which no step gives.`);
    }
    outputMap.set(name, value);
  }
  return { steps: sort(unsorted), valueNames, inputs: inputMap, outputs: outputMap };
}

function toStep(
  name: string,
  definition: FunctionStep | ModelStep,
  valueOf: (name: string) => number,
): GraphStep {
  const { maxInFlight } = definition;
  if (maxInFlight !== undefined && !(Number.isSafeInteger(maxInFlight) && maxInFlight >= 1)) {
    throw new RangeError(
      `maxInFlight of step "${name}" is an integer of at least 1, got ${String(maxInFlight)}.`,
    );
  }
  if ((definition.run === undefined) === (definition.model === undefined)) {
    throw new TypeError(`Step "${name}" is either a function, \`run\`, or a \`model\`.`);
  }
  const toPort = ([port, value]: readonly [string, string]): Port => ({ name: port, value: valueOf(value) });
  const [takes, gives] =
    definition.model === undefined ? functionPorts(name, definition) : modelPorts(name, definition);
  const each = definition.each;
  if (each !== undefined && !takes.some(([, value]) => value === each)) {
    throw new TypeError(
      `Step "${name}" runs on each of "${each}", which is none of its inputs ${quote(takes.map(([, value]) => value))}.`,
    );
  }
  return {
    name,
    definition,
    takes: takes.map(toPort),
    gives: gives.map(toPort),
    each: each === undefined ? undefined : valueOf(each),
  };
}

/** Pairs of the step's name for a value and the value's name. */
type Pairs = readonly (readonly [string, string])[];

function functionPorts(name: string, step: FunctionStep): readonly [Pairs, Pairs] {
  const { run, inputs = [], outputs = [name] } = step;
  if (typeof run !== 'function') {
    throw new TypeError(`\`run\` of step "${name}" is a function, got ${nameOf(run)}.`);
  }
  for (const [key, names] of Object.entries({ inputs, outputs })) {
    if (!Array.isArray(names)) {
      throw new TypeError(`\`${key}\` of step "${name}" is a list of names, got ${nameOf(names)}.`);
    }
  }
  return [inputs.map((input) => [input, input]), outputs.map((output) => [output, output])];
}

function modelPorts(name: string, { model, inputs, outputs }: ModelStep): readonly [Pairs, Pairs] {
  const { signature } = model;
  const takes = pairsOf(signature.inputs, inputs);
  const gives = pairsOf(signature.outputs, outputs);
  assertPorts(name, 'input', signature.inputs, takes);
  assertPorts(name, 'output', signature.outputs, gives);
  const missing = signature.inputs.find((spec) => !takes.some(([port]) => port === spec.name));
  if (missing !== undefined) {
    throw new TypeError(`Step "${name}" has no value for the input "${missing.name}" of its model.`);
  }
  return [takes, gives];
}

function pairsOf(specs: readonly TensorSpec[], map: Readonly<Record<string, string>> | undefined): Pairs {
  return map === undefined ? specs.map((spec) => [spec.name, spec.name]) : Object.entries(map);
}

function assertPorts(step: string, kind: string, specs: readonly TensorSpec[], pairs: Pairs): void {
  const known = specs.map((spec) => spec.name);
  const unknown = pairs.find(([port]) => !known.includes(port));
  if (unknown === undefined) return;
  throw new TypeError(
    `The model of step "${step}" has no ${kind} "${unknown[0]}"; its ${kind}s are ${quote(known)}.`,
  );
}

/** Lists names for a message. */
export function quote(names: Iterable<string>): string {
  return [...names].map((name) => `"${name}"`).join(', ') || 'none';
}

/** Orders steps by need. @throws `TypeError` for steps that wait for each other. */
function sort(steps: readonly GraphStep[]): GraphStep[] {
  const giver = new Map<number, GraphStep>();
  for (const step of steps) for (const { value } of step.gives) giver.set(value, step);
  const sorted = new Set<GraphStep>();
  const path: { readonly step: GraphStep; next: number }[] = [];
  const onPath = new Set<GraphStep>();
  const enter = (step: GraphStep): void => {
    if (onPath.has(step)) {
      const circle = path.slice(path.findIndex((visit) => visit.step === step));
      throw new TypeError(
        `Steps wait for each other: ${[...circle, { step }].map((visit) => `"${visit.step.name}"`).join(' needs ')}.`,
      );
    }
    if (sorted.has(step)) return;
    onPath.add(step);
    path.push({ step, next: 0 });
  };
  // Depth first with a path of its own: long chains must not end in a stack overflow.
  for (const root of steps) {
    enter(root);
    for (let visit = path.at(-1); visit !== undefined; visit = path.at(-1)) {
      const port = visit.step.takes[visit.next];
      visit.next += 1;
      if (port === undefined) {
        path.pop();
        onPath.delete(visit.step);
        sorted.add(visit.step);
        continue;
      }
      const needed = giver.get(port.value);
      if (needed !== undefined) enter(needed);
    }
  }
  return [...sorted];
}

/** Picks the steps that some outputs of the graph need. */
export function planFor(graph: Graph, outputs: Iterable<string>): Plan {
  const ports = [...outputs].map((name) => ({ name, value: graph.outputs.get(name) as number }));
  const needed = new Set(ports.map(({ value }) => value));
  const steps: GraphStep[] = [];
  for (const step of [...graph.steps].reverse()) {
    if (!step.gives.some(({ value }) => needed.has(value))) continue;
    for (const { value } of step.takes) needed.add(value);
    steps.push(step);
  }
  steps.reverse();
  const giver = new Map<number, number>();
  const followers: number[][] = steps.map(() => []);
  const waits = steps.map((step, position) => {
    const before = new Set<number>();
    for (const { value } of step.takes) {
      const from = giver.get(value);
      if (from !== undefined) before.add(from);
    }
    for (const from of before) followers[from]?.push(position);
    for (const { value } of step.gives) giver.set(value, position);
    return before.size;
  });
  return {
    steps,
    waits,
    followers,
    inputs: [...graph.inputs].flatMap(([name, value]) => (needed.has(value) ? [{ name, value }] : [])),
    outputs: ports,
    forks: steps.some(
      ({ each }, position) =>
        each !== undefined || (position > 0 && !followers[position - 1]?.includes(position)),
    ),
  };
}
