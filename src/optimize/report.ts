/** A decision for programs, for repositories, and for people. */

import type { Decision } from './decision.ts';
import { describeDecision } from './report-facts.ts';
import { toHtml } from './report-html.ts';
import { toMarkdown } from './report-markdown.ts';

/** The same facts in three forms. */
export interface Report {
  /** Plain data: what was tried, every number, and why. */
  toJSON(): { readonly v: 1 } & Decision;
  /** GitHub-flavoured Markdown. */
  toMarkdown(): string;
  /** One file with plots, which needs no other and no script. */
  toHtml(): string;
}

/** Makes the report of a decision. */
export function createReport(decision: Decision): Report {
  const facts = describeDecision(decision);
  return {
    toJSON: () => ({ v: 1, ...decision }),
    toMarkdown: () => toMarkdown(facts),
    toHtml: () => toHtml(decision, facts),
  };
}
