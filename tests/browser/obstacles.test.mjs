/** What the page says where no picture can come, in the words that people read. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { openViewer, startBrowser } from './browser.mjs';
import { Cleanup, TURN, eventually, freePort, relayOnly, startAgent, startCoturn, startMosquitto, writeConfig } from './run.mjs';

/** The page gives a path 10 s; the rest is for a busy machine. */
const SAID_MS = 30_000;

const shared = new Cleanup();
let browser;

before(async () => {
  browser = await startBrowser(shared);
});
after(() => shared.run());

/**
 * Opens a page for whom only the relay at `port` is allowed, and waits for what it says.
 * @param {Cleanup} cleanup
 * @param {number} port
 * @param {string} username
 * @param {RegExp} sentence
 * @param {string} screenshot
 */
async function relayed(cleanup, port, username, sentence, screenshot) {
  const broker = await startMosquitto(cleanup);
  const config = await writeConfig(cleanup, broker, relayOnly(port, 'tcp', username));
  await startAgent(cleanup, config);
  const viewer = await openViewer(browser, config.page);
  const opened = performance.now();
  await eventually('the page says what stands in the way', SAID_MS, async () => sentence.test(await viewer.words())).catch(async (error) => {
    throw new Error(`${error.message}; it says: ${await viewer.words()}`);
  });
  console.log(`after ${((performance.now() - opened) / 1000).toFixed(1)} s: ${await viewer.words()}`);
  await viewer.screenshot(screenshot);
  assert.deepEqual(viewer.faults, []);
  await viewer.page.context().close();
}

/** Runs a test with a cleanup of its own. */
function obstacle(name, body) {
  test(name, async () => {
    const cleanup = new Cleanup();
    try {
      await body(cleanup);
    } finally {
      await cleanup.run();
    }
  });
}

obstacle('a TURN server that refuses the password is named', async (cleanup) => {
  const coturn = await startCoturn(cleanup);
  const sentence = /No way to the device was found.*The TURN server 127\.0\.0\.1 refuses the user name or password/;
  await relayed(cleanup, coturn.port, `not-${TURN.user}`, sentence, 'turn-refuses');
});

obstacle('a TURN server that is not there is named', async (cleanup) => {
  const sentence = /No way to the device was found.*The TURN server 127\.0\.0\.1 does not answer/;
  await relayed(cleanup, await freePort(), TURN.user, sentence, 'turn-away');
});

obstacle('what the page loads while the network changes is loaded again', async (cleanup) => {
  const config = await writeConfig(cleanup, undefined);
  await startAgent(cleanup, config);
  const viewer = await openViewer(browser, 'about:blank');
  let lost = 0;
  await viewer.page.route('**/rpc.js', (route) => {
    lost += 1;
    return lost === 1 ? route.abort('failed') : route.continue();
  });
  let asked = 0;
  await viewer.page.route('**/peercam.json', (route) => {
    asked += 1;
    return asked === 1 ? route.abort('failed') : route.continue();
  });
  await viewer.page.goto(config.page);
  await viewer.plays(SAID_MS);
  assert.deepEqual([lost, asked], [2, 2], 'each was lost once');
  await viewer.page.context().close();
});

obstacle('a browser without H.264 is told so', async (cleanup) => {
  const config = await writeConfig(cleanup, undefined);
  await startAgent(cleanup, config);
  const viewer = await openViewer(browser, 'about:blank');
  await viewer.page.addInitScript(`
    const all = RTCRtpReceiver.getCapabilities.bind(RTCRtpReceiver);
    RTCRtpReceiver.getCapabilities = (kind) => {
      const { codecs, ...rest } = all(kind);
      return { ...rest, codecs: codecs.filter(({ mimeType }) => !/h264/i.test(mimeType)) };
    };`);
  await viewer.page.goto(config.page);
  await eventually('the page says it', SAID_MS, async () => /This browser has no H\.264/.test(await viewer.words()));
  await viewer.screenshot('no-h264');
  await viewer.page.context().close();
});
