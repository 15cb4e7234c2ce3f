/** Several backends as one: each execution provider is offered by another one of them. */
import type { Backend, ExecutionProvider } from '../core/backend.ts';
import { unusableError } from '../core/library.ts';

/** One execution provider, and what offers it. */
export interface ProviderMember {
  /** What is said of it when the backend cannot be asked. */
  readonly provider: ExecutionProvider;
  /** Absent where it cannot work; the provider's `refusal` says why. */
  readonly backend?: Backend;
  /** Lists the provider without starting the backend. Default: asks the backend. */
  readonly probe?: () => Promise<ExecutionProvider>;
}

/**
 * Joins backends so that their providers are candidates of one backend. One that does not start is listed with the
 * reason, as long as another one does.
 *
 * @param members - best first, each with another name; they are closed with it.
 */
export function joinByProvider(name: string, members: readonly ProviderMember[]): Backend {
  const list = async ({ provider, backend, probe }: ProviderMember): Promise<ExecutionProvider> => {
    if (backend === undefined) return provider;
    if (probe !== undefined) return probe();
    const offered = await backend.providers();
    return offered.find((each) => each.name === provider.name) ?? refused(provider, 'it is not offered here');
  };
  return {
    name,
    providers: async () => {
      const outcomes = await Promise.allSettled(members.map((member) => list(member)));
      const failed = outcomes.filter((outcome) => outcome.status === 'rejected').pop();
      const isUsable = outcomes.some(
        (outcome) => outcome.status === 'fulfilled' && outcome.value.refusal === undefined,
      );
      if (failed !== undefined && !isUsable) throw failed.reason;
      return outcomes.map((outcome, i) =>
        outcome.status === 'fulfilled'
          ? outcome.value
          : refused((members[i] as ProviderMember).provider, messageOf(outcome.reason)),
      );
    },
    createSession: (source, options) => {
      const member = members.find(({ provider }) => provider.name === options.provider);
      if (member?.backend !== undefined) return member.backend.createSession(source, options);
      const reason = member?.provider.refusal ?? `${name} does not offer it`;
      return Promise.reject(unusableError(options.provider, reason));
    },
    close: async () => {
      await Promise.all(members.map(async ({ backend }) => backend?.close()));
    },
  };
}

function refused(provider: ExecutionProvider, refusal: string): ExecutionProvider {
  return { ...provider, refusal };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
