/** WHEP with a player that was written elsewhere (npm whip-whep, by the draft's own author), on a page of another origin. */

import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { startBrowser } from './browser.mjs';
import { Cleanup, eventually, servePage, startAgent, writeConfig } from './run.mjs';

const PLAYER = fileURLToPath(new URL('../../web/node_modules/whip-whep/whep.js', import.meta.url));
const PICTURE_MS = 10_000;

const shared = new Cleanup();
let page;
let site;
let agentPage;

before(async () => {
  // One address, so one candidate: whip-whep 1.2.0 joins those of an ICE restart with commas, which is no SDP.
  const config = await writeConfig(shared, undefined, 'listen = ["127.0.0.1"]', 'whep = true');
  agentPage = config.page;
  await startAgent(shared, config);
  const folder = await shared.folder();
  await copyFile(PLAYER, join(folder, 'whep.js'));
  await writeFile(
    join(folder, 'index.html'),
    `<!doctype html><meta charset="utf-8"><video id="video" autoplay muted playsinline></video>
    <script type="module">
      import { WHEPClient } from './whep.js';
      const pc = (window.pc = new RTCPeerConnection());
      pc.ontrack = (event) => (document.getElementById('video').srcObject = event.streams[0] ?? new MediaStream([event.track]));
      for (const kind of new URLSearchParams(location.search).get('kinds').split(',')) pc.addTransceiver(kind, { direction: 'recvonly' });
      window.whep = new WHEPClient();
      window.failed = '';
      whep.view(pc, new URLSearchParams(location.search).get('url')).catch((error) => (window.failed = String(error)));
    </script>`,
  );
  const browser = await startBrowser(shared);
  page = await (await browser.newContext()).newPage();
  site = await servePage(shared, folder);
});
after(() => shared.run());

const video = () =>
  page.evaluate(async () => {
    const report = [...(await window.pc.getStats()).values()];
    const video = report.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
    const { framesDecoded = 0, framesReceived = 0, timestamp = 0 } = video ?? {};
    return { decoded: framesDecoded, received: framesReceived, at: timestamp, failed: window.failed };
  });

async function watch(kinds) {
  await page.goto(`${site}?kinds=${kinds}&url=${encodeURIComponent(`${agentPage}whep`)}`);
  await eventually('a picture is decoded', PICTURE_MS, async () => {
    const { decoded, failed } = await video();
    if (failed) throw new Error(failed);
    return decoded > 0;
  });
}

async function count(ms) {
  const from = await video();
  await new Promise((resolve) => setTimeout(resolve, ms));
  const to = await video();
  return { decoded: to.decoded - from.decoded, received: to.received - from.received, secs: (to.at - from.at) / 1000 };
}

for (const kinds of ['video', 'audio,video', 'video,audio']) {
  test(`a player of another origin that asks for ${kinds} decodes every frame`, async () => {
    await watch(kinds);
    const { decoded, received, secs } = await count(5000);
    console.log(`whip-whep, ${kinds}: decoded ${decoded} frames in ${secs.toFixed(2)} s`);
    // A busy machine draws fewer than the 30 a second of the test card.
    assert.ok(decoded > 10 * secs && decoded >= 0.98 * received, `${decoded} of ${received} frames in ${secs} s`);
    const session = await page.evaluate(() => String(window.whep.resourceURL));
    await page.evaluate(() => window.whep.stop());
    assert.equal((await fetch(session, { method: 'DELETE' })).status, 404, 'the player has ended the session itself');
  });
}

test('an ICE restart keeps the picture', async () => {
  await watch('audio,video');
  const before = await page.evaluate(() => window.pc.remoteDescription.sdp.match(/a=ice-ufrag:(.*)/)[1]);
  // The player never sends the tag of the 201, only that of a restart: its candidates are refused with 428 until then.
  await page.evaluate(() => window.whep.restart());
  await eventually('the device has answered with new credentials', 3000, () =>
    page.evaluate((old) => window.pc.remoteDescription.sdp.match(/a=ice-ufrag:(.*)/)[1] !== old, before),
  );
  const { decoded, received, secs } = await count(3000);
  console.log(`after an ICE restart: decoded ${decoded} frames in ${secs.toFixed(2)} s`);
  assert.ok(decoded > 10 * secs && decoded >= 0.95 * received, `${decoded} of ${received} frames in ${secs} s`);
  assert.equal(await page.evaluate(() => window.pc.connectionState), 'connected');
  await page.evaluate(() => window.whep.stop());
});
