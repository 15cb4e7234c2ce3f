// Bundles a folder with Metro as a React Native app is: the package from `dist` by the export condition `react-native`,
// lowered by React Native's Babel preset. A process of its own, since Metro and a test runner do not get along:
//   node test/runtimes/metro-bundle.mjs <folder with index.js or index.ts> <out.js> [package=folder …]
import { cpSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('../..', import.meta.url));
const [folder, out, ...extras] = process.argv.slice(2);
const metroRuntime = dirname(require.resolve('metro-runtime/package.json'));
const preset = require.resolve('@react-native/babel-preset');

const app = realpathSync(mkdtempSync(join(tmpdir(), 'inlay-metro-')));
try {
  cpSync(folder, app, { recursive: true });
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'app', private: true }));
  writeFileSync(
    join(app, 'babel.config.js'),
    `module.exports = { presets: [[${JSON.stringify(preset)}, { enableBabelRuntime: false }]] };`,
  );
  // Copies, as an installation makes them: Metro knows only files in the folders that it watches.
  const install = (name, from, parts = ['']) => {
    const to = join(app, 'node_modules', name);
    mkdirSync(to, { recursive: true });
    for (const part of parts) cpSync(join(from, part), join(to, part), { recursive: true });
  };
  install('inlay', root, ['package.json', 'dist']);
  for (const name of ['@noble/curves', '@noble/ed25519', '@noble/hashes'])
    install(name, join(root, 'node_modules', name));
  for (const extra of extras) install(...extra.split('='));
  mkdirSync(join(app, '.map'));
  writeFileSync(join(app, 'assets-registry.js'), 'exports.registerAsset = (asset) => asset;');
  const entry = existsSync(join(app, 'index.ts')) ? 'index.ts' : 'index.js';

  const { runBuild } = require('metro');
  const { getDefaultConfig, mergeConfig } = require('metro-config');
  const config = mergeConfig(getDefaultConfig.getDefaultValues(app), {
    projectRoot: app,
    watchFolders: [app, metroRuntime],
    cacheStores: [],
    maxWorkers: 1,
    resetCache: true,
    fileMapCacheDirectory: join(app, '.map'),
    reporter: { update() {} },
    resolver: {
      useWatchman: false,
      unstable_conditionNames: ['react-native'],
      platforms: ['android', 'ios'],
      assetExts: ['onnx'],
    },
    transformer: {
      asyncRequireModulePath: join(metroRuntime, 'src/modules/asyncRequire.js'),
      // As in the configuration that React Native gives to apps.
      allowOptionalDependencies: true,
      assetRegistryPath: join(app, 'assets-registry.js'),
      babelTransformerPath: require.resolve('metro-babel-transformer'),
    },
  });
  await runBuild(config, { entry, platform: 'android', dev: false, minify: false, out });
} finally {
  rmSync(app, { recursive: true, force: true });
}
