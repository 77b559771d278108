/** The agent without any broker: the page that it serves itself speaks to it by HTTP. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { openViewer, startBrowser } from './browser.mjs';
import { Cleanup, eventually, startAgent, writeConfig } from './run.mjs';

const FIRST_PICTURE_MS = 10_000;
const BACK_MS = 5000;

const shared = new Cleanup();
let browser;

before(async () => {
  browser = await startBrowser(shared);
});
after(() => shared.run());

function httpTest(name, body) {
  test(name, async () => {
    const cleanup = new Cleanup();
    try {
      const config = await writeConfig(cleanup, undefined);
      const agent = await startAgent(cleanup, config);
      await body({ cleanup, config, agent, viewer: await openViewer(browser, config.page) });
    } finally {
      await cleanup.run();
    }
  });
}

httpTest('the picture comes without a broker, and its statistics too', async ({ viewer }) => {
  await viewer.plays(FIRST_PICTURE_MS);
  const count = await viewer.countFrames(5000);
  console.log(`by HTTP: decoded ${count.decoded} of ${count.made} frames in ${count.secs.toFixed(2)} s, ${count.freezes} freezes`);
  assert.ok(count.decoded > 0.98 * count.made, `over 98 % are decoded, not ${count.decoded} of ${count.made}`);
  assert.equal(count.freezes, 0);
  await viewer.page.keyboard.press('s');
  await eventually('the overlay says that there is no broker', 3000, async () => (await viewer.stat('Broker')) === 'none');
  await viewer.screenshot('http');
  assert.deepEqual(viewer.faults, []);
  await viewer.page.context().close();
});

httpTest('who closes the page leaves at once', async ({ viewer, config }) => {
  await viewer.plays(FIRST_PICTURE_MS);
  const other = await openViewer(browser, config.page);
  await other.plays(FIRST_PICTURE_MS);
  assert.equal((await other.rpc('system.info')).viewers, 2);
  await viewer.page.goto('about:blank');
  await eventually('the device knows that one viewer is left', 3000, async () => (await other.rpc('system.info')).viewers === 1);
  await viewer.page.context().close();
  await other.page.context().close();
});

httpTest('the agent is killed and started again: the picture is back, untouched', async ({ viewer, config, agent, cleanup }) => {
  await viewer.plays(FIRST_PICTURE_MS);
  const before = await viewer.session();
  await agent.stop('SIGKILL');
  await eventually('the page says that something is wrong', 15_000, async () => (await viewer.words()) !== '');
  console.log(`killed: the page says “${await viewer.words()}”`);
  await startAgent(cleanup, config);
  const returned = performance.now();
  await eventually('the picture is back', BACK_MS, async () => {
    const session = await viewer.session();
    return session !== '' && session !== before && (await viewer.page.evaluate(() => window.peercam.state())) === 'playing';
  });
  console.log(`the picture is back ${((performance.now() - returned) / 1000).toFixed(2)} s after the agent`);
  assert.deepEqual(viewer.faults, []);
  await viewer.page.context().close();
});

httpTest('the agent ends in an orderly way: the page says so', async ({ viewer, agent }) => {
  await viewer.plays(FIRST_PICTURE_MS);
  await agent.stop('SIGTERM');
  await eventually('the page says that the device is offline', 3000, async () => /Test bench is offline since/.test(await viewer.words()));
  console.log(`ended: the page says “${await viewer.words()}”`);
  assert.doesNotMatch(await viewer.words(), /broker/i);
  await viewer.screenshot('http-offline');
  await viewer.page.context().close();
});
