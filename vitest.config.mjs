import { playwright } from '@vitest/browser-playwright';
import { defineConfig } from 'vitest/config';
import { findChromium, skipsBrowser } from './scripts/chromium.mjs';

const shared = {
  // Properties of fast-check run hundreds of cases, on machines of two cores.
  testTimeout: 60_000,
  hookTimeout: 60_000,
  setupFiles: ['test/properties.setup.ts'],
};

const node = {
  test: {
    ...shared,
    name: 'node',
    environment: 'node',
    include: ['test/**/*.test.ts'],
    exclude: ['test/browser/**', 'test/pages/**'],
    globalSetup: ['test/build.setup.ts'],
  },
};

// Real pages, in Chromium, on machines of two cores: one that starves gets a second try, of which the summary tells.
const pages = {
  test: {
    ...node.test,
    name: 'pages',
    include: ['test/pages/**/*.test.ts'],
    exclude: [],
    retry: process.env.CI ? 1 : 0,
  },
};

const browser = () => ({
  // Everything that tests import from packages, so that Vite does not find it halfway and reload the page.
  optimizeDeps: {
    include: [
      'comlink',
      'fast-check',
      'react',
      'react-dom/client',
      'react-dom/server',
      '@noble/curves/nist.js',
      '@noble/ed25519',
      '@tensorflow/tfjs',
      '@tensorflow/tfjs-backend-wasm',
      '@tensorflow/tfjs-backend-webgpu',
      'fflate',
      '@noble/hashes/sha2.js',
    ],
    exclude: ['onnxruntime-web'],
  },
  test: {
    ...shared,
    name: 'browser',
    include: ['test/core/**/*.test.ts', 'test/browser/**/*.test.ts'],
    browser: {
      enabled: true,
      headless: true,
      screenshotFailures: false,
      instances: [{ browser: 'chromium' }],
      provider: playwright({
        launchOptions: {
          executablePath: process.env.INLAY_CHROMIUM ?? findChromium(),
          args: [
            '--no-sandbox',
            '--disable-quic',
            '--no-first-run',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            '--enable-unsafe-webgpu',
          ],
        },
      }),
    },
  },
});

if (skipsBrowser()) console.log('INLAY_SKIP_BROWSER is set: the browser project is left out.');

export default defineConfig({
  test: {
    projects: skipsBrowser() ? [node, pages] : [node, pages, browser()],
    ...(process.env.CI ? { maxWorkers: 2 } : {}),
  },
});
