/** Whether a model is well formed: everything that can be told without knowing what its operators do. */

import { ModelError } from '../core/errors.ts';
import type { ModelProto, OperatorSetIdProto, TensorProto } from './messages.ts';
import { checkFunctions, createArity } from './validate-functions.ts';
import { checkGraph, checkNodes } from './validate-graph.ts';
import { createTensorCheck } from './validate-tensors.ts';

/** What can be wrong with a model. */
export type ProblemCode =
  | 'ir-version'
  | 'opset-version'
  | 'opset-missing'
  | 'opset-duplicate'
  | 'value-unknown'
  | 'value-unordered'
  | 'value-circular'
  | 'value-redefined'
  | 'value-shadowed'
  | 'output-undefined'
  | 'input-untyped'
  | 'node-unnamed'
  | 'node-duplicate'
  | 'operator-missing'
  | 'attribute-duplicate'
  | 'attribute-reference'
  | 'nesting'
  | 'tensor-invalid'
  | 'tensor-unsupported'
  | 'tensor-not-finite'
  | 'external-invalid'
  | 'external-missing'
  | 'function-duplicate'
  | 'function-arity'
  | 'function-recursive';

/** Something that is wrong with a model. */
export interface Problem {
  /** Errors make a model unusable; warnings are what its publisher should look at. */
  readonly severity: 'error' | 'warning';
  readonly code: ProblemCode;
  /** Where in the model: `graph.node[3].input[0]`. */
  readonly path: string;
  /** For people: one clause. */
  readonly message: string;
  /** Byte of the file, where {@link ValidateOptions.source} is given and the problem lies in a tensor's bytes. */
  readonly offset?: number;
}

/** A {@link Problem} of a constant, wherever that is. */
export type Finding = Omit<Problem, 'path'>;

/** What {@link validateModel} may look at besides the model. */
export interface ValidateOptions {
  /** Bytes of each external file that is there, by its path from the model's folder. Default: files are not checked. */
  readonly files?: ReadonlyMap<string, number>;
  /** The file that the model was parsed from. */
  readonly source?: Uint8Array;
  /** Looks into weights for values that are not finite: some 50 ms for 100 MB. Default true. */
  readonly readsWeights?: boolean;
  /** What is known of constants already: they are not looked at. */
  readonly judged?: ReadonlyMap<TensorProto, readonly Finding[]>;
}

/** Takes note of a problem. */
export type Report = (problem: Problem) => void;

/** Versions that onnxruntime 1.30 promises to open: what is below may fail, what is above is refused. */
const SUPPORTED = {
  library: 'onnxruntime 1.30',
  ir: { lowest: 3, highest: 13 },
  opset: { lowest: 7, highest: 26 },
} as const;

/**
 * Finds everything that is wrong with a model: names and order of values across bodies and functions (onnx
 * docs/IR.md), constants whose shape, dtype and payload disagree, external files, versions. Linear in the size of the
 * model. Whether an operator exists, and takes what it is given, only an inference library knows.
 * @returns errors and warnings in order of place; empty for a model that is well formed.
 */
export function validateModel(model: ModelProto, options: ValidateOptions = {}): readonly Problem[] {
  const problems: Problem[] = [];
  const report: Report = (problem) => void problems.push(problem);
  checkIrVersion(model.irVersion, report);
  const opsets = checkOpsets(model.opsetImport, 'opset_import', report);
  const shared = {
    report,
    checkTensor: createTensorCheck(options, report),
    checkArity: createArity(model.functions ?? [], report),
  };
  checkGraph(model.graph, { ...shared, opsets });
  checkFunctions(model.functions ?? [], report, (body, path) => {
    const own = checkOpsets(body.opsetImport, `${path}.opset_import`, report);
    checkNodes(body, path, { ...shared, opsets: own });
  });
  return problems;
}

/**
 * Takes only models that are well formed; warnings pass.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for a version or dtype that is unknown here, else
 * `ERR_INLAY_MODEL_INVALID`; it names the first error and counts them in `details.problems`.
 */
export function assertValid(model: ModelProto, options?: ValidateOptions): void {
  const errors = validateModel(model, options).filter(({ severity }) => severity === 'error');
  const [first] = errors;
  if (first === undefined) return;
  const isUnsupported = /^(ir-version|opset-version|tensor-unsupported)$/.test(first.code);
  const more = errors.length === 1 ? '' : `, the first of ${errors.length} errors`;
  throw new ModelError(
    isUnsupported ? 'ERR_INLAY_MODEL_UNSUPPORTED' : 'ERR_INLAY_MODEL_INVALID',
    `The model is not valid at ${first.path}${more}: ${first.message}.`,
    {
      details: {
        problems: errors.length,
        problem: first.code,
        path: first.path,
        ...(first.offset !== undefined && { offset: first.offset }),
      },
    },
  );
}

function checkIrVersion(version: number | undefined, report: Report): void {
  const { library, ir } = SUPPORTED;
  if (version !== undefined && version >= ir.lowest && version <= ir.highest) return;
  report({
    severity: version !== undefined && version < ir.lowest ? 'warning' : 'error',
    code: 'ir-version',
    path: 'ir_version',
    message: `the IR version is ${version ?? 'not stated'}, and ${library} takes ${ir.lowest} to ${ir.highest}`,
  });
}

/** @returns the domains that may be used. */
function checkOpsets(
  imports: readonly OperatorSetIdProto[],
  path: string,
  report: Report,
): ReadonlySet<string> {
  const { library, opset } = SUPPORTED;
  const domains = new Set<string>();
  for (const [i, one] of imports.entries()) {
    const domain = one.domain || 'ai.onnx';
    const { version = 0 } = one;
    const at = `${path}[${i}]`;
    if (domains.has(domain)) {
      report({
        severity: 'warning',
        code: 'opset-duplicate',
        path: at,
        message: `the operator set of ${domain} is imported twice`,
      });
    }
    domains.add(domain);
    const isStandard = domain === 'ai.onnx';
    const isOpenable = version >= 1 && !(isStandard && version > opset.highest);
    if (!isOpenable || (isStandard && version < opset.lowest)) {
      const range = isStandard ? `, and ${library} takes ${opset.lowest} to ${opset.highest}` : '';
      report({
        severity: isOpenable ? 'warning' : 'error',
        code: 'opset-version',
        path: at,
        message: `the operator set of ${domain} has the version ${version}${range}`,
      });
    }
  }
  return domains;
}
