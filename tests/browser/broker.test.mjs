/** The agent with a real mosquitto, and everything going away and coming back under a page that nobody touches. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { openViewer, startBrowser } from './browser.mjs';
import { Cleanup, eventually, servePage, startAgent, startMosquitto, writeConfig } from './run.mjs';

const FIRST_PICTURE_MS = 10_000;
/** What is promised: the picture again so soon after the agent's return. */
const BACK_MS = 5000;

const shared = new Cleanup();
let browser;

before(async () => {
  browser = await startBrowser(shared);
});
after(() => shared.run());

/** A broker, a configured agent, and a page opened on the agent's own address without any fragment. */
async function bench(cleanup) {
  const broker = await startMosquitto(cleanup);
  const config = await writeConfig(cleanup, broker);
  const agent = await startAgent(cleanup, config);
  return { broker, config, agent };
}

/** Runs a test with a bench of its own. */
function benchTest(name, body) {
  test(name, async () => {
    const cleanup = new Cleanup();
    try {
      await body({ ...(await bench(cleanup)), cleanup });
    } finally {
      await cleanup.run();
    }
  });
}

benchTest('mosquitto signals as the embedded broker does, and the page works from any file server', async ({ broker, config, cleanup }) => {
  const own = await openViewer(browser, config.page);
  await own.plays(FIRST_PICTURE_MS);
  const { device } = await (await fetch(`${config.page}peercam.json`)).json();
  const elsewhere = `${await servePage(cleanup)}#device=${device}&broker=${encodeURIComponent(broker.pageUrl)}&stats=1`;
  const viewer = await openViewer(browser, elsewhere);
  await viewer.plays(FIRST_PICTURE_MS);
  const count = await viewer.countFrames(10_000);
  console.log(`mosquitto: decoded ${count.decoded} frames in ${count.secs.toFixed(2)} s, ${count.freezes} freezes`);
  assert.ok(count.decoded > 0.98 * count.made, `over 98 % are decoded, not ${count.decoded} of ${count.made}`);
  assert.equal(count.freezes, 0);
  const info = await viewer.rpc('system.info');
  assert.equal(info.device.id, device);
  assert.equal(info.device.name, 'Test bench');
  await viewer.screenshot('mosquitto');
  assert.deepEqual([...own.faults, ...viewer.faults], []);
  await own.page.context().close();
  await viewer.page.context().close();
});

benchTest('the agent is killed and started again: the picture is back, untouched', async ({ config, agent, cleanup }) => {
  const viewer = await openViewer(browser, config.page);
  await viewer.plays(FIRST_PICTURE_MS);
  const before = await viewer.session();
  await agent.stop('SIGKILL');
  await eventually('the page says that something is wrong', 15_000, async () => (await viewer.words()) !== '');
  console.log(`killed: the page says “${await viewer.words()}”`);
  await viewer.screenshot('agent-killed');
  await startAgent(cleanup, config);
  const returned = performance.now();
  await eventually(`the picture is back (${await viewer.words()})`, BACK_MS, async () => {
    const session = await viewer.session();
    return session !== '' && session !== before && (await viewer.page.evaluate(() => window.peercam.state())) === 'playing';
  });
  console.log(`the picture is back ${((performance.now() - returned) / 1000).toFixed(2)} s after the agent`);
  assert.deepEqual(viewer.faults, []);
  await viewer.page.context().close();
});

benchTest('the agent is killed and started again at once: the picture is back just the same', async ({ config, agent, cleanup }) => {
  const viewer = await openViewer(browser, config.page);
  await viewer.plays(FIRST_PICTURE_MS);
  const before = await viewer.session();
  await agent.stop('SIGKILL');
  await startAgent(cleanup, config);
  const returned = performance.now();
  await eventually('the picture is back', BACK_MS, async () => {
    const session = await viewer.session();
    return session !== '' && session !== before && (await viewer.page.evaluate(() => window.peercam.state())) === 'playing';
  });
  console.log(`the picture is back ${((performance.now() - returned) / 1000).toFixed(2)} s after the agent`);
  await viewer.page.context().close();
});

benchTest('the agent ends in an orderly way: the page says so', async ({ config, agent }) => {
  const viewer = await openViewer(browser, config.page);
  await viewer.plays(FIRST_PICTURE_MS);
  const asked = performance.now();
  await agent.stop('SIGTERM');
  const took = performance.now() - asked;
  await eventually('the page says that the device is offline, and what the device said', 2000, async () =>
    /offline since .*shutting down/.test(await viewer.words()),
  );
  console.log(`ended after ${(took / 1000).toFixed(2)} s: the page says “${await viewer.words()}”`);
  assert.ok(took < 2000, `the agent ends within 2 s, not after ${took} ms`);
  await viewer.screenshot('offline');
  await viewer.page.context().close();
});

benchTest('the broker goes away and comes back: the running session does not notice', async ({ broker, config, cleanup }) => {
  const viewer = await openViewer(browser, `${config.page}#stats=1`);
  await viewer.plays(FIRST_PICTURE_MS);
  const before = await viewer.session();
  const from = await viewer.counters();
  await broker.program.stop('SIGKILL');
  await eventually('the page notices that the broker is gone', 5000, () => viewer.page.evaluate(() => !window.peercam.broker()));
  const away = await viewer.countFrames(6000);
  await eventually('the overlay says so', 2000, async () => /^away/.test(await viewer.stat('Broker')));
  await viewer.screenshot('broker-away');
  assert.equal(await viewer.words(), '', 'the picture needs no broker, so nothing is said over it');
  await startMosquitto(cleanup, broker);
  await eventually('page and broker find each other again', BACK_MS, () => viewer.page.evaluate(() => window.peercam.broker()));
  const to = await viewer.counters();
  console.log(`without a broker: ${away.decoded} frames in ${away.secs.toFixed(2)} s`);
  assert.ok(away.decoded > 0.98 * away.made, `frames go on: ${away.decoded} of ${away.made}`);
  assert.equal(to.freezeCount - from.freezeCount, 0, 'no freeze');
  assert.equal(await viewer.session(), before, 'it is still the same session');
  assert.ok((await viewer.rpc('system.info')).uptime_secs >= 0);
  await viewer.page.context().close();
});

test('the page says what is missing: broker, device', async () => {
  const cleanup = new Cleanup();
  try {
    const page = await servePage(cleanup);
    const broker = await startMosquitto(cleanup);
    const viewer = await openViewer(browser, `${page}#device=nobody&broker=${encodeURIComponent(broker.pageUrl)}`);
    await eventually('it says that the device is unknown', 8000, async () => /knows no device “nobody”/.test(await viewer.words()));
    await viewer.screenshot('unknown-device');
    await broker.program.stop();
    await eventually('it says that the broker is gone', 8000, async () => /broker does not answer/.test(await viewer.words()));
    assert.deepEqual(viewer.faults, []);
    await viewer.page.goto('about:blank');
    await viewer.page.goto(page);
    await eventually('it says what the address lacks', 3000, async () => /names no device/.test(await viewer.words()));
    await viewer.page.context().close();
  } finally {
    await cleanup.run();
  }
});
