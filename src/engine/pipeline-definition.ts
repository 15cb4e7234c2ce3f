import type { TensorMap } from '../core/backend.ts';
import type { Signature } from '../core/signature.ts';
import type { Tensor } from '../core/tensor.ts';
import type { Feed, Feeds } from './feeds.ts';

/** What flows through a pipeline, by name: tensors and anything else. */
export type Values = Readonly<Record<string, unknown>>;

/** What a step is told about the call that it is part of. */
export interface StepContext {
  /** Aborts when the call is given up or another of its steps fails. */
  readonly signal: AbortSignal;
  /** Milliseconds that are left of the call's deadline. */
  readonly deadlineMs?: number;
  readonly priority?: number;
}

/** What a {@link ModelStep} needs of a model; {@link Model} has it. The pipeline never closes it. */
export interface PipelineModel {
  readonly signature: Signature;
  run(
    feeds: Feeds,
    options?: {
      readonly outputs?: readonly string[];
      readonly signal?: AbortSignal;
      readonly deadlineMs?: number;
      readonly priority?: number;
    },
  ): Promise<TensorMap>;
}

interface AnyStep {
  /** Runs of this step under way at once, over all calls; the others wait in line. Default: no bound. */
  readonly maxInFlight?: number;
  /**
   * Name of an input that is an array: the step runs once for each element, and what it gives are arrays in the same
   * order. A model makes batches of them.
   */
  readonly each?: string;
  /** Leaves the step out when false. What it gives is `undefined` then. */
  when?(values: Values): boolean;
}

/** A step that is a function, asynchronous or not. */
export interface FunctionStep extends AnyStep {
  /** Values that it needs. Default: none. */
  readonly inputs?: readonly string[];
  /** Values that it gives: own properties of what it returns. Default: one, the whole result, named like the step. */
  readonly outputs?: readonly string[];
  /** @param values - the inputs, by name. */
  run(values: Values, context: StepContext): unknown;
  readonly model?: undefined;
}

/** A step that runs a model. Each run is an ordinary call, which shares batches with all others. */
export interface ModelStep extends AnyStep {
  readonly model: PipelineModel;
  /** Value for each input of the model. Default: the values of the same names. */
  readonly inputs?: Readonly<Record<string, string>>;
  /** Value that each output of the model becomes; others are not computed. Default: all, under their own names. */
  readonly outputs?: Readonly<Record<string, string>>;
  readonly run?: undefined;
}

/** Steps and how values flow between them. The order in which steps are written means nothing. */
export interface PipelineDefinition {
  /** Values that each call gives. Default: what steps need and none gives. */
  readonly inputs?: readonly string[];
  readonly steps: Readonly<Record<string, FunctionStep | ModelStep>>;
  /** Values that a call returns. */
  readonly outputs: readonly string[];
}

/** Turns a union into an intersection: all that the steps ask of one value. */
type All<Union> = (Union extends unknown ? (all: Union) => void : never) extends (all: infer Both) => void
  ? Both
  : never;

type AskedBy<Step, Name extends string> = Step extends { readonly model: PipelineModel }
  ? Step extends { readonly inputs: infer Map }
    ? Name extends Map[keyof Map]
      ? Feed
      : unknown
    : unknown
  : Step extends { run(values: infer Taken, ...rest: never[]): unknown }
    ? Name extends keyof Taken
      ? Step extends { readonly each: Name }
        ? readonly Taken[Name][]
        : Taken[Name]
      : unknown
    : unknown;

type AskedByAll<Steps, Name extends string> =
  All<{ [Key in keyof Steps]: { readonly asked: AskedBy<Steps[Key], Name> } }[keyof Steps]> extends {
    readonly asked: infer Asked;
  }
    ? Asked
    : unknown;

/** What calls give: names from the definition, types from the functions that take them. */
export type PipelineInputs<Definition extends PipelineDefinition> = Definition extends {
  readonly inputs: readonly (infer Name extends string)[];
}
  ? { readonly [Key in Name]: AskedByAll<Definition['steps'], Key> }
  : Values;

type Repeated<Step, Result> = Step extends { readonly each: string } ? Result[] : Result;
type Perhaps<Step, Result> = Step extends { when(values: never): boolean } ? Result | undefined : Result;

type GivenBy<Step, StepName, Name extends string> = Step extends { readonly model: PipelineModel }
  ? Step extends { readonly outputs: infer Map }
    ? Name extends Map[keyof Map]
      ? Tensor
      : never
    : never
  : Step extends { run(...taken: never[]): infer Result }
    ? Step extends { readonly outputs: readonly (infer Given)[] }
      ? Name extends Given
        ? Name extends keyof Awaited<Result>
          ? Awaited<Result>[Name]
          : unknown
        : never
      : Name extends StepName
        ? Awaited<Result>
        : never
    : never;

type GivenByAll<Steps, Name extends string> = {
  [Key in keyof Steps]: GivenBy<Steps[Key], Key, Name> extends infer Result
    ? [Result] extends [never]
      ? never
      : Perhaps<Steps[Key], Repeated<Steps[Key], Result>>
    : never;
}[keyof Steps];

/** What calls return: types from what the functions return; `unknown` where names say nothing. */
export type PipelineOutputs<Definition extends PipelineDefinition> = {
  readonly [Name in Definition['outputs'][number]]: [GivenByAll<Definition['steps'], Name>] extends [never]
    ? unknown
    : GivenByAll<Definition['steps'], Name>;
};
