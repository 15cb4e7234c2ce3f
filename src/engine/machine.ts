/** What is loaded with the first model: everything that opens models and plans their runs. */
import type { ExecutionProvider, ModelSource } from '../core/backend.ts';
import { silentLogger } from '../core/logger.ts';
import type { Tracing } from '../core/tracing.ts';
import { formatPrometheus } from '../schedule/metrics-text.ts';
import { createMetrics } from '../schedule/metrics.ts';
import { createPredictions, type Predictions, type PredictionsStats } from '../schedule/predictions.ts';
import { createScheduler } from '../schedule/scheduler.ts';
import type { Embedded, Target } from '../update/follower.ts';
import type { InlayParts, LoadOptions } from './inlay.ts';
import type { EmbeddedRelease, FileReference, VariantsReference } from './reference.ts';
import { createDemotions } from './demotions.ts';
import type * as Follow from './follow.ts';
import { createMemory } from './memory.ts';
import { assertCall, type ManagedModel, type ModelParts } from './model.ts';
import { assertScheduling } from './scheduling-options.ts';
import { openServing, type Serving, type ServingOptions } from './serving.ts';

export { createModel } from './model.ts';

/** Loads what only models by name need. */
export const loadFollow = (): Promise<typeof Follow> => import('./follow.ts');

/** Opens models for one Inlay, and plans their runs together. */
export interface Machine {
  /** What every version of a model shares. */
  partsOf(name: string | undefined, options: LoadOptions): ModelParts;
  open(
    source: ModelSource,
    model: ModelParts,
    options: LoadOptions & Pick<ServingOptions, 'version' | 'variant' | 'costs' | 'mustRun'>,
  ): Promise<Serving>;
  /** Opens the fastest of several variants that is right. */
  openVariants(
    reference: VariantsReference,
    locate: (reference: FileReference) => Promise<ModelSource>,
    model: ModelParts,
    options: LoadOptions,
  ): Promise<Serving>;
  /** Reads what came with the app as the slots of its updater have it. */
  readEmbedded(
    embedded: FileReference | EmbeddedRelease,
    locate: (reference: FileReference) => Promise<ModelSource>,
  ): Promise<Embedded>;
  /** Tries a release where it can do no harm. @throws when it does not work there. */
  prove(target: Target): Promise<void>;
  /** Starts what trying and running a release need, ahead of time. Failures show when it is used. */
  prepare(): void;
  /** Lists what this device can run models on. */
  providers(): Promise<readonly ExecutionProvider[]>;
  usedBytes(): number;
  /** Statistics of the cache of answers; `undefined` while no model uses it. */
  predictions(): PredictionsStats | undefined;
  /** Metrics as text for Prometheus. */
  metricsOf(models: Iterable<ManagedModel>): string;
}

/** Creates the machine of one Inlay. */
export function createMachine(parts: InlayParts, tracing: Tracing | undefined): Machine {
  const { platform, logger = silentLogger, memoryBudgetBytes } = parts;
  let predictions: Predictions | undefined;
  const scheduler = createScheduler({ platform, logger, tracing });
  const memory = createMemory(memoryBudgetBytes, (error) => {
    logger.warn({ err: error }, 'A model could not leave memory.');
  });
  const demotions = createDemotions({ platform, store: parts.store, logger });
  const servingParts = { ...parts, scheduler, memory, demotions, logger };
  const servingOptions = <Options extends LoadOptions>(
    { metrics }: ModelParts,
    options: Options,
  ): Options & ServingOptions => ({
    ...options,
    device: options.device ?? parts.device ?? 'auto',
    placement: options.placement ?? parts.placement ?? 'auto',
    intraOpThreads: parts.intraOpThreads,
    metrics,
  });
  return {
    partsOf: (name, { deadlineMs, priority, predictions: isCached, ...scheduling }) => {
      assertScheduling(scheduling);
      assertCall({
        ...(deadlineMs !== undefined && { deadlineMs }),
        ...(priority !== undefined && { priority }),
      });
      return {
        name,
        metrics: createMetrics(),
        ...(isCached && { predictions: (predictions ??= createPredictions(platform, parts.predictions)) }),
        ...((deadlineMs ?? priority) !== undefined && {
          defaults: {
            ...(deadlineMs !== undefined && { deadlineMs }),
            ...(priority !== undefined && { priority }),
          },
        }),
        tracing,
      };
    },
    open: (source, model, options) => openServing(servingParts, source, servingOptions(model, options)),
    openVariants: async ({ variants, ...rules }, locate, model, options) => {
      const { openVariants } = await import('./variants.ts');
      return openVariants(
        servingParts,
        Object.entries(variants).map(([name, file]) => ({ name, source: () => locate(file) })),
        rules,
        servingOptions(model, options),
      );
    },
    readEmbedded: async (embedded, locate) =>
      (await import('./embedded.ts')).readEmbedded(platform, embedded, locate),
    prove: async ({ source, golden, rules: { loadTimeoutS } }) => {
      const { testIsolated, within } = await import('./self-test.ts');
      const test = testIsolated({ backends: parts.backends, logger }, source, golden);
      await within(platform, loadTimeoutS, test, () => {});
    },
    prepare: () => {
      const prepare = async (): Promise<void> => {
        const { startIsolated } = await import('./self-test.ts');
        await startIsolated(parts.backends);
      };
      prepare().catch(() => {});
    },
    providers: async () => {
      const listed = await Promise.allSettled(parts.backends.map((backend) => backend.providers()));
      return listed.flatMap((outcome) => (outcome.status === 'fulfilled' ? outcome.value : []));
    },
    usedBytes: () => memory.usedBytes,
    predictions: () => predictions?.stats(),
    metricsOf: (models) =>
      formatPrometheus(
        [...models].map(({ model: { name, version }, metrics, current }) => {
          const { queue } = current().info();
          const [lane] = queue.lanes;
          return {
            name,
            version,
            metrics,
            gauges: {
              waiting: queue.waiting,
              running: queue.running,
              slots: queue.slots.length,
              ...(lane && {
                batchCap: lane.batchCap,
                perSampleMs: lane.perSampleMs,
                perBatchMs: lane.perBatchMs,
              }),
            },
          };
        }),
      ),
  };
}
