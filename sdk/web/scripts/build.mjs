/** Bundles the SDK (dist/mrtc.mjs), its worker and, if it is there, the demo page (dist-demo/). `--watch` goes on doing so. */

import { cp, mkdir, rm, stat } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { readFile } from 'node:fs/promises';
import * as esbuild from 'esbuild';

/** What a page has to load for the SDK; a change that needs more should be worth it. */
const SIZE_BUDGET_GZIP_BYTES = 60 * 1024;

const shared = { bundle: true, format: 'esm', target: 'es2022', sourcemap: true, minify: true, logLevel: 'warning' };
const isWatching = process.argv.includes('--watch');

async function run(options) {
  if (!isWatching) return esbuild.build({ ...shared, ...options });
  const context = await esbuild.context({ ...shared, ...options });
  await context.watch();
}

await rm('dist', { recursive: true, force: true });
// The worker is a file of its own beside the SDK: only who encrypts loads it, and a strict content policy allows it.
const entries = { mrtc: 'src/index.ts', 'mrtc-e2ee-worker': 'src/e2ee/worker.ts' };
await run({ entryPoints: entries, outdir: 'dist', outExtension: { '.js': '.mjs' } });

const demo = 'examples/demo';
if (await stat(`${demo}/main.ts`).catch(() => undefined)) {
  await rm('dist-demo', { recursive: true, force: true });
  await mkdir('dist-demo', { recursive: true });
  await cp(`${demo}/index.html`, 'dist-demo/index.html');
  await run({ entryPoints: { main: `${demo}/main.ts`, style: `${demo}/style.css` }, outdir: 'dist-demo' });
}

const size = gzipSync(await readFile('dist/mrtc.mjs')).length;
console.log(`dist/mrtc.mjs: ${(size / 1024).toFixed(1)} KiB gzipped`);
if (size > SIZE_BUDGET_GZIP_BYTES) {
  console.error(`the size budget of ${SIZE_BUDGET_GZIP_BYTES / 1024} KiB is exceeded`);
  process.exit(1);
}
