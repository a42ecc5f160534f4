// Copies what the pages need out of the npm packages, and nothing else of them.
import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';

const here = new URL('.', import.meta.url);
const from = new URL('node_modules/', here);
const to = new URL('dist/', here);
mkdirSync(to, { recursive: true });
for (const old of readdirSync(to)) {
  if (old !== '.keep') rmSync(new URL(old, to), { recursive: true });
}
for (const [source, name] of [
  ['swagger-ui-dist/swagger-ui-bundle.js', 'swagger-ui.js'],
  ['swagger-ui-dist/swagger-ui-bundle.js.LICENSE.txt', 'swagger-ui.js.LICENSE.txt'],
  ['swagger-ui-dist/swagger-ui.css', 'swagger-ui.css'],
  ['swagger-ui-dist/LICENSE', 'swagger-ui.LICENSE.txt'],
  ['redoc/bundles/redoc.standalone.js', 'redoc.js'],
  ['redoc/bundles/redoc.standalone.js.LICENSE.txt', 'redoc.js.LICENSE.txt'],
  ['redoc/LICENSE', 'redoc.LICENSE.txt'],
]) {
  cpSync(new URL(source, from), new URL(name, to));
}
