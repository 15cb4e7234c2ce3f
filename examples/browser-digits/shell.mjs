import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

/** Variants of ONNX Runtime that a device without a GPU does not ask for. They are kept when they were asked for. */
const RARE = /\.(?:jsep|jspi|asyncify)-|webgpu|jspi/;

/**
 * A plugin for Vite that writes the service worker: its source, told which files of the build to keep.
 * @param {string} source path of its source
 * @returns {import('vite').Plugin}
 */
export function serviceWorker(source) {
  return {
    name: 'service-worker',
    apply: 'build',
    enforce: 'post',
    async generateBundle(_options, bundle) {
      const names = Object.keys(bundle).filter((name) => !RARE.test(name));
      const paths = ['/', '/icon.svg', '/manifest.webmanifest', ...names.map((name) => `/${name}`)];
      const version = createHash('sha256');
      for (const name of names) version.update(name).update(contentOf(bundle[name]));
      const shell = {
        version: version.digest('hex').slice(0, 16),
        paths: paths.filter((path) => path !== '/index.html'),
      };
      const code = await readFile(source, 'utf8');
      this.emitFile({
        type: 'asset',
        fileName: 'sw.js',
        source: `const SHELL = ${JSON.stringify(shell)};\n${code}`,
      });
    },
  };
}

function contentOf(file) {
  return file.type === 'chunk' ? file.code : file.source;
}
