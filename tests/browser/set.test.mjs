/** The camera is changed while three pages watch: nobody renegotiates, and nobody's picture stops. */

import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { openViewer, startBrowser } from './browser.mjs';
import { Cleanup, eventually, freePort, startAgent, writeConfig } from './run.mjs';

const FIRST_PICTURE_MS = 10_000;
/** From one key frame to the next: within so long the encoder has to keep to another bit rate. */
const GOP_MS = 4000;
const UNSIGNED = '[unsigned]\nmethods = ["camera.set"]';
const STAND_IN = fileURLToPath(new URL('../rpicam-vid-stand-in', import.meta.url));

const shared = new Cleanup();
let browser;

before(async () => {
  browser = await startBrowser(shared);
});
after(() => shared.run());

/** Three pages on one device, and what must stay as it is with each. */
async function threeViewers(url) {
  const viewers = await Promise.all([1, 2, 3].map(() => openViewer(browser, url)));
  await Promise.all(viewers.map((viewer) => viewer.plays(FIRST_PICTURE_MS)));
  const identity = (viewer) => viewer.page.evaluate(() => [window.peercam.session(), window.connections.length]);
  const before = await Promise.all(viewers.map(identity));
  return {
    viewers,
    async expectTheSame() {
      assert.deepEqual(await Promise.all(viewers.map(identity)), before, 'the sessions and connections are those of the beginning');
      for (const viewer of viewers) assert.deepEqual(viewer.faults, []);
      await Promise.all(viewers.map((viewer) => viewer.page.context().close()));
    },
  };
}

/** What a page's decoder has got and shown so far. */
const inbound = (viewer) =>
  viewer.page.evaluate(async () => {
    const report = await window.connections.at(-1).getStats();
    const video = [...report.values()].find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
    const { bytesReceived, framesReceived, framesDecoded, freezeCount, frameWidth, frameHeight, timestamp } = video;
    return { bytesReceived, framesReceived, framesDecoded, freezeCount, frameWidth, frameHeight, timestamp };
  });

/** Pictures of soft noise, each another one: an encoder makes of them as many bits as it may. */
function noise(width, height, pictures) {
  const [luma, chroma] = [width * height, (width * height) / 2];
  const raw = Buffer.alloc(pictures * (luma + chroma), 128);
  let state = 1;
  for (let at = 0; at < raw.length; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    if (at % (luma + chroma) < luma) raw[at] = 100 + ((state >> 16) % 48);
  }
  return raw;
}

test('the bit rate goes from 2 Mbit/s to 300 kbit/s and back, and three pages go on', async () => {
  const cleanup = new Cleanup();
  try {
    const folder = await cleanup.folder();
    const command = join(folder, 'rpicam-vid-stand-in');
    await copyFile(STAND_IN, command);
    await writeFile(`${command}.raw`, noise(320, 240, 8));
    const page = `http://127.0.0.1:${await freePort()}/`;
    const path = join(folder, 'peercam.toml');
    const camera = `name = "noise"\nsource = "rpicam"\ncommand = ${JSON.stringify(command)}\nencoder = "software"\nsize = "320x240"\nfps = 15\ngop_secs = 4`;
    await writeFile(
      path,
      `device.state_dir = ${JSON.stringify(join(folder, 'state'))}\nbroker.url = "off"\nnetwork.udp_port = 0\n` +
        `http.listen = "${new URL(page).host}"\n[[camera]]\n${camera}\n${UNSIGNED}\n`,
    );
    await startAgent(cleanup, { path, page });
    const { viewers, expectTheSame } = await threeViewers(page);
    const freezes = await Promise.all(viewers.map(async (viewer) => (await inbound(viewer)).freezeCount));
    const rates = [];
    for (const bps of [2_000_000, 300_000, 2_000_000]) {
      const state = await viewers[0].rpc('camera.set', { bitrate_bps: bps });
      assert.equal(state.bitrate_bps, bps, 'what is really set');
      const from = await Promise.all(viewers.map(inbound));
      await new Promise((resolve) => setTimeout(resolve, GOP_MS));
      const to = await Promise.all(viewers.map(inbound));
      const kbps = to.map((now, index) => (8 * (now.bytesReceived - from[index].bytesReceived)) / (now.timestamp - from[index].timestamp));
      console.log(`${bps / 1000} kbit/s asked for, received: ${kbps.map((rate) => rate.toFixed(0)).join(', ')}`);
      rates.push(Math.max(...kbps));
      for (const [index, now] of to.entries()) {
        const [received, decoded] = ['framesReceived', 'framesDecoded'].map((name) => now[name] - from[index][name]);
        assert.ok(decoded > 20 && decoded >= received - 2, `every frame is decoded: ${decoded} of ${received}`);
      }
    }
    assert.ok(rates[1] < 450 && rates[0] > 2 * rates[1] && rates[2] > 2 * rates[1], `the encoder follows within a GOP: ${rates}`);
    for (const [index, viewer] of viewers.entries()) {
      assert.equal((await inbound(viewer)).freezeCount, freezes[index], 'no picture freezes');
    }
    await expectTheSame();
  } finally {
    await cleanup.run();
  }
});

test('size and rate change, and three pages show the new picture without a new session', async () => {
  const cleanup = new Cleanup();
  try {
    const config = await writeConfig(cleanup, undefined, UNSIGNED);
    await startAgent(cleanup, config);
    const { viewers, expectTheSame } = await threeViewers(config.page);
    for (const [width, height, fps] of [[640, 360, 15], [1920, 1080, 10], [1280, 720, 30]]) {
      const state = await viewers[1].rpc('camera.set', { width, height, fps });
      assert.deepEqual([state.width, state.height, state.fps], [width, height, fps], 'what is really set');
      for (const viewer of viewers) {
        const { framesDecoded } = await inbound(viewer);
        await eventually(`the page shows ${width}×${height}, and moves`, 5000, async () => {
          const now = await inbound(viewer);
          return now.frameWidth === width && now.frameHeight === height && now.framesDecoded > framesDecoded + 5;
        });
      }
    }
    await viewers[2].screenshot('set');
    await expectTheSame();
  } finally {
    await cleanup.run();
  }
});

test('one page goes to the low rung and back, three times, and the other notices nothing', async () => {
  const cleanup = new Cleanup();
  try {
    const config = await writeConfig(cleanup, undefined);
    await startAgent(cleanup, config);
    const [goes, stays] = await Promise.all(['quality=low', ''].map((hash) => openViewer(browser, `${config.page}#${hash}`)));
    await Promise.all([goes, stays].map((viewer) => viewer.plays(FIRST_PICTURE_MS)));
    const identity = () => goes.page.evaluate(() => [window.peercam.session(), window.connections.length]);
    const before = await identity();
    assert.equal((await inbound(goes)).frameWidth, 640, 'it begins with the low rung');
    const { freezeCount } = await inbound(goes);
    for (const [quality, width] of [['high', 1280], ['low', 640], ['high', 1280], ['low', 640], ['high', 1280], ['low', 640]]) {
      const reply = await goes.rpc('session.quality', { session: before[0], quality });
      assert.deepEqual(reply, { quality });
      const { framesDecoded } = await inbound(goes);
      await eventually(`the page shows ${quality}, and moves`, 5000, async () => {
        const now = await inbound(goes);
        return now.frameWidth === width && now.framesDecoded > framesDecoded + 10;
      });
    }
    // Some may wait for their turn; one that was left out would be missing for ever.
    await eventually('every frame is decoded', 5000, async () => {
      const now = await inbound(goes);
      return now.framesReceived - now.framesDecoded <= 2;
    });
    const last = await inbound(goes);
    assert.equal(last.freezeCount, freezeCount, 'no picture freezes');
    assert.equal((await inbound(stays)).frameWidth, 1280);
    await goes.screenshot('low');
    assert.deepEqual(await identity(), before, 'the session and the connection are those of the beginning');
    for (const viewer of [goes, stays]) assert.deepEqual(viewer.faults, []);
  } finally {
    await cleanup.run();
  }
});
