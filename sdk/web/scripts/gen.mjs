/**
 * Generates src/gen from proto/ with buf: that of `BUF`, of the repository's .venv (`make setup`), or of the PATH.
 * Only the client protocol: the other contracts never reach a browser.
 */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const web = dirname(dirname(fileURLToPath(import.meta.url)));
const proto = join(web, '..', '..', 'proto');
const local = join(web, '..', '..', '.venv', 'bin', 'buf');
const buf = process.env.BUF ?? (existsSync(local) ? local : 'buf');

const paths = ['signaling', 'common'].flatMap((area) => ['--path', join(proto, 'mrtc', area)]);
try {
  execFileSync(buf, ['generate', proto, '--template', 'buf.gen.yaml', ...paths], { cwd: web, stdio: 'inherit' });
} catch (error) {
  const hint = error.code === 'ENOENT' ? `${buf} was not found: run \`make setup\`, or set BUF` : error.message;
  console.error(`src/gen could not be generated: ${hint}`);
  process.exit(1);
}
