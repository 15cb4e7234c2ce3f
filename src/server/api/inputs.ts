/** What the admin API takes: bounded texts, numbers and lists, and nothing that is not known. */

import { z } from 'zod';

/** A text for people, without control characters, which databases and terminals do not take. */
export function text(most: number, least = 1): z.ZodType<string> {
  return z
    .string()
    .min(least)
    .max(most)
    .regex(/^\P{Cc}*$/u, 'It has no control characters.');
}

/** A name in an address: of a model, a channel, a rule. */
export const nameParam: z.ZodType<string> = text(128);

/** A time, milliseconds since 1970, up to the year 2200. */
export const time: z.ZodType<number> = z.number().int().min(0).max(7_258_118_400_000);

/** A span, seconds, up to ten years. */
export const seconds: z.ZodType<number> = z.number().int().min(0).max(315_360_000);

/** A time in a query. */
export const timeQuery: z.ZodType<number, string> = z
  .string()
  .regex(/^\d{1,13}$/, 'It is a time in milliseconds since 1970.')
  .transform(Number);

/** A whole number in a query. */
export function countQuery(most: number): z.ZodType<number, string> {
  return z
    .string()
    .regex(/^\d{1,10}$/, 'It is a whole number.')
    .transform(Number)
    .refine((value) => value <= most, `It is ${most} at most.`);
}
