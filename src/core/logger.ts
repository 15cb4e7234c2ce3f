/**
 * Where Inlay writes what it decides. A pino logger fits as it is, and so does `console`.
 *
 * Facts are plain data, never user data and never keys; an error among them is called `err`. Messages are sentences
 * that stay the same, so that they can be searched for and counted.
 */
export interface Logger {
  /** Writes what only matters when looking for the reason of something. */
  debug(facts: object, message: string): void;
  /** Writes a decision that Inlay took by itself. */
  info(facts: object, message: string): void;
  /** Writes what went wrong without harm to a call: Inlay took another way. */
  warn(facts: object, message: string): void;
  /** Writes what went wrong and stays wrong until somebody acts. */
  error(facts: object, message: string): void;
}

/** Writes nothing. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
