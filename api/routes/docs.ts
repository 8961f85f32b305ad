/**
 * The docs page: Swagger UI from its package over /openapi.yaml. Everything comes from this server,
 * and the policy of its headers forbids the browser to ask any other. URLs are relative, so that a
 * proxy may put the server under a path of its own.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Handlers } from '../handlers.ts';

const PAGE = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <title>ramify: HTTP interface</title>
    <link rel="icon" href="data:," />
    <link rel="stylesheet" href="docs/swagger-ui.css" />
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
`;

/** Without validatorUrl null it would have the document judged by a server elsewhere. */
const START = `SwaggerUIBundle({
  url: 'openapi.yaml',
  dom_id: '#swagger-ui',
  deepLinking: true,
  validatorUrl: null,
});
`;

/** The library sets styles on elements, but only by script, which needs no exception. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  // A day later a new release is seen, and until then nobody waits.
  'cache-control': 'public, max-age=86400',
};

export function docsRoutes(): Pick<Handlers, 'getDocs' | 'getDocsFile'> {
  const library = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'));
  const read = (name: string): string => readFileSync(join(library, name), 'utf8');
  const styles = read('swagger-ui.css');
  const script = read('swagger-ui-bundle.js');
  const answer = (type: string, text: string): Response =>
    new Response(text, { headers: { ...HEADERS, 'content-type': `${type}; charset=utf-8` } });
  const files = {
    'swagger-ui.css': () => answer('text/css', styles),
    'swagger-ui-bundle.js': () => answer('text/javascript', script),
    'start.js': () => answer('text/javascript', START),
  };
  return {
    getDocs: () => answer('text/html', PAGE),
    getDocsFile: ({ path }) => files[path.file](),
  };
}
