import type { UpdateEvent } from '../update/events.ts';
import type { UpdateClient, UpdatesState } from '../update/update-client.ts';

/** The updates of models that were loaded by name. Without a sync server there are none, and nothing happens. */
export interface Updates {
  /** What each model runs, tries and has rejected; what is being downloaded; when the server was asked last. */
  state(): Promise<UpdatesState | undefined>;
  /** Asks the sync server now. Rejects with the reason when the check fails. */
  check(): Promise<void>;
  /** Holds polls and downloads back until {@link Updates.resume}. What runs is not touched. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /**
   * Lets the release of a model that waits begin now, whatever the policy says.
   * @returns whether it answers calls now.
   */
  activate(model: string): Promise<boolean>;
  /** What happened on this device, oldest first: the last 200 events, those of earlier starts included. */
  history(): Promise<readonly UpdateEvent[]>;
  /**
   * Hears of events as they happen.
   * @returns unsubscribes.
   */
  onEvent(listener: (event: UpdateEvent) => void): Promise<() => void>;
}

/**
 * Creates what apps steer updates by.
 * @param client - gives `undefined` without a sync server.
 */
export function createUpdates(client: () => Promise<UpdateClient | undefined>): Updates {
  return {
    state: async () => (await client())?.state(),
    check: async () => (await client())?.check(),
    pause: async () => (await client())?.pause(),
    resume: async () => (await client())?.resume(),
    activate: async (model) => (await client())?.updater(model).activate() ?? false,
    history: async () => (await client())?.history() ?? [],
    onEvent: async (listener) => (await client())?.onEvent(listener) ?? (() => {}),
  };
}
