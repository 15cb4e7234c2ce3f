// Makes a checkout ready for a command: node scripts/setup.mjs demo|test|check
// Everything below Node itself is imported after the version check, so that an old Node gets a sentence, not a syntax error.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(
    `Inlay needs Node 20.19 or newer and this is Node ${process.versions.node}: install a newer Node.`,
  );
  process.exit(1);
}

const { runMain, SetupError } = await import('./run.mjs');

await runMain(async () => {
  const goal = process.argv[2];
  if (!['demo', 'test', 'check'].includes(goal)) {
    throw new SetupError('Usage: node scripts/setup.mjs demo|test|check');
  }
  const { withLock } = await import('./lock.mjs');
  const { ensurePackages } = await import('./packages.mjs');
  const { ensureDist } = await import('./dist.mjs');
  const { ensureChromium } = await import('./chromium.mjs');
  const { ensureRuntimes } = await import('./runtimes.mjs');
  const { ensureServers } = await import('./servers.mjs');
  await withLock(async () => {
    await ensurePackages();
    if (goal !== 'check') await ensureDist();
    if (goal === 'test') {
      await ensureChromium();
      await ensureRuntimes();
      await ensureServers();
    }
  });
});
