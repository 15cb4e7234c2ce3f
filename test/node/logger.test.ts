import { PassThrough } from 'node:stream';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { silentLogger, type Logger } from '../../src/core/logger.ts';

describe('a logger', () => {
  it('is a pino instance as it is, which writes facts and message as one JSON line each', () => {
    const lines = new PassThrough();
    const logger: Logger = pino({ level: 'debug' }, lines);
    const levels = ['debug', 'info', 'warn', 'error'] as const;
    for (const level of levels) logger[level]({ model: 'digits', batch: 8 }, 'A sentence.');
    logger.error({ err: new RangeError('too large') }, 'It failed.');
    const written = String(lines.read())
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(written).toMatchObject([
      ...[20, 30, 40, 50].map((level) => ({ level, model: 'digits', batch: 8, msg: 'A sentence.' })),
      { err: { type: 'RangeError', message: 'too large' }, msg: 'It failed.' },
    ]);
  });

  it('is the console, too', () => {
    const logger: Logger = console;
    expect(logger.warn).toBeTypeOf('function');
  });

  it('writes nothing when it is silent', () => {
    const loggers: Logger[] = [silentLogger];
    for (const logger of loggers) expect(logger.error({}, 'unseen')).toBeUndefined();
  });
});
