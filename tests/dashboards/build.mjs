// Bundles page/ for the browser: `node build.mjs OUT.js`, in a folder that has node_modules (make sets one up).
import fs from 'node:fs';
import path from 'node:path';
import * as esbuild from 'esbuild';

const modules = path.resolve('node_modules');

// @grafana/scenes imports files of @grafana/schema without their extension, which esbuild does not guess.
const schemaFiles = {
  name: 'schema-files',
  setup(build) {
    build.onResolve({ filter: /^@grafana\/schema\/dist\// }, ({ path: wanted }) => {
      const file = path.join(modules, wanted);
      return { path: ['', '.js', '.mjs'].map((end) => file + end).find((name) => fs.existsSync(name)) };
    });
  },
};

await esbuild.build({
  entryPoints: ['page/main.tsx'],
  outfile: process.argv[2],
  bundle: true,
  platform: 'browser',
  format: 'iife',
  nodePaths: [modules],
  mainFields: ['browser', 'module', 'main'],
  inject: ['page/node.js'],
  define: { 'process.env.NODE_ENV': '"production"', 'process.env.NODE_DEBUG': 'false', global: 'window' },
  loader: { '.svg': 'dataurl', '.png': 'dataurl', '.woff': 'dataurl', '.woff2': 'dataurl', '.ttf': 'dataurl' },
  alias: { 'react-router-dom-v5-compat': 'react-router-dom' },
  plugins: [schemaFiles],
  logLevel: 'error',
});
