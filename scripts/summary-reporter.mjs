import { writeFileSync } from 'node:fs';

/** Writes how many tests passed, failed and were skipped to the file that `INLAY_TEST_SUMMARY` names. */
export default class SummaryReporter {
  onTestRunEnd(modules, unhandledErrors) {
    // A file that cannot be loaded and an error outside of any test fail a run just as a test does.
    const count = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
    for (const module of modules) {
      if (module.errors().length > 0) count.failed += 1;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        count[state === 'passed' || state === 'failed' ? state : 'skipped'] += 1;
        if (test.diagnostic()?.flaky) console.log(`Passed at the second try only: ${test.fullName}`);
      }
    }
    writeFileSync(process.env.INLAY_TEST_SUMMARY, JSON.stringify(count));
  }
}
