// Takes pictures of dashboards in headless Chromium: `node picture.mjs BUNDLE.js REQUEST.json`, in a folder that has node_modules.
//
// REQUEST: {prometheus: URL, chromium: FILE, pictures: [{dashboard: JSON, variables: {}, from, to, mode: dark|light, title, out: FILE}]}.
// Prints what each picture shows, as JSON: [{out, errors: [], shown: {PANEL: {kind, series, points, values: [{title, text, color}]}}}].
import fs from 'node:fs';
import http from 'node:http';
import puppeteer from 'puppeteer-core';

const LIMIT_MS = 120_000;
const [bundle, requestFile] = process.argv.slice(2);
const request = JSON.parse(fs.readFileSync(requestFile, 'utf8'));
const script = fs.readFileSync(bundle);
const styles = bundle.replace(/js$/, 'css');

const FONT = 'body{margin:0;font-family:Inter,Helvetica,Arial,sans-serif;font-size:14px}';
const page = (asked) => `<!doctype html><html><head><meta charset="utf-8"><style>${FONT}</style>
${fs.existsSync(styles) ? '<link rel="stylesheet" href="/page.css">' : ''}</head><body><div id="root"></div>
<script>window.grafanaBootData={user:{timezone:'utc'},settings:{},navTree:[]};window.asked=${JSON.stringify(asked).replace(/</g, '\\u003c')}</script>
<script src="/page.js"></script></body></html>`;

const server = http.createServer(async (query, answer) => {
  const send = (type, body) => answer.writeHead(200, { 'content-type': type }).end(body);
  const index = /^\/picture\/(\d+)$/.exec(query.url)?.[1];
  if (index !== undefined) {
    send('text/html', page(request.pictures[index]));
  } else if (query.url === '/page.js') {
    send('text/javascript', script);
  } else if (query.url === '/page.css') {
    send('text/css', fs.readFileSync(styles));
  } else if (query.url.startsWith('/prometheus/')) {
    const found = await fetch(request.prometheus + query.url.slice('/prometheus'.length));
    send('application/json', await found.text());
  } else {
    answer.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const base = `http://127.0.0.1:${server.address().port}`;

const browser = await puppeteer.launch({
  executablePath: request.chromium,
  headless: true,
  protocolTimeout: LIMIT_MS,
  args: [
    ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run', '--disable-sync'],
    ...['--disable-background-networking', '--disable-component-update', '--font-render-hinting=none'],
  ],
});
const report = [];
for (const [index, asked] of request.pictures.entries()) {
  const tab = await browser.newPage();
  const errors = [];
  tab.on('pageerror', (error) => errors.push(String(error.stack ?? error)));
  const deepest = Math.max(...asked.dashboard.panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
  await tab.setViewport({ width: 1624, height: 170 + 38 * deepest });
  await tab.goto(`${base}/picture/${index}`, { waitUntil: 'domcontentloaded', timeout: LIMIT_MS });
  try {
    await tab.waitForFunction(() => window.state?.().complete, { timeout: LIMIT_MS, polling: 200 });
  } catch (error) {
    errors.push(`not complete: ${error}`);
  }
  // the last canvases are drawn after the last answer
  await tab.evaluate(() => new Promise((drawn) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(drawn)), 500)));
  await tab.screenshot({ path: asked.out });
  const seen = await tab.evaluate(() => window.state?.() ?? { errors: [], shown: {} });
  report.push({ out: asked.out, errors: [...errors, ...seen.errors], shown: seen.shown });
  await tab.close();
}
await browser.close();
server.close();
console.log(JSON.stringify(report));
