/**
 * A visit to the viewer page in Chromium, led by another program: `node visit.mjs FRAGMENT` serves the page to itself on loopback, opens it
 * with that fragment, and then takes one command a line, `["method", argument, ...]` of {@link Viewer}, and answers each with a line,
 * `{"value": ...}` or `{"error": "..."}`. It ends with its standard input.
 */

import { createInterface } from 'node:readline';

import { openViewer, startBrowser } from './browser.mjs';
import { Cleanup, servePage } from './run.mjs';

const cleanup = new Cleanup();
try {
  const browser = await startBrowser(cleanup);
  const viewer = await openViewer(browser, `${await servePage(cleanup)}#${process.argv[2]}`);
  for await (const line of createInterface({ input: process.stdin })) {
    const [method, ...args] = JSON.parse(line);
    const answer = await Promise.resolve(viewer[method](...args)).then(
      (value) => ({ value: value ?? null }),
      (error) => ({ error: String(error.message ?? error) }),
    );
    console.log(JSON.stringify(answer));
  }
} finally {
  await cleanup.run();
}
