/** Media through a real TURN server, because the device's configuration says so. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openViewer, startBrowser } from './browser.mjs';
import { Cleanup, TURN, startAgent, startCoturn, startMosquitto, writeConfig } from './run.mjs';

for (const transport of ['udp', 'tcp']) {
  test(`the browser’s relay over ${transport} carries the picture`, async () => {
    const cleanup = new Cleanup();
    try {
      const browser = await startBrowser(cleanup);
      const coturn = await startCoturn(cleanup);
      const broker = await startMosquitto(cleanup);
      const config = await writeConfig(
        cleanup,
        broker,
        `transport_policy = "relay"
[[network.ice_server]]
urls = ["turn:127.0.0.1:${coturn.port}?transport=${transport}"]
username = "${TURN.user}"
credential_file = CREDENTIAL`,
      );
      await startAgent(cleanup, config);
      const viewer = await openViewer(browser, `${config.page}#stats=1`);
      await viewer.plays(15_000);
      const count = await viewer.countFrames(5000);
      console.log(`relay over ${transport}: ${count.decoded} frames in ${count.secs.toFixed(2)} s, ${count.freezes} freezes, ${await viewer.stat('Path')}`);
      assert.ok(count.decoded > 0.98 * 30 * count.secs, `over 98 % are decoded, not ${count.decoded} in ${count.secs} s`);
      assert.equal(await viewer.stat('Path'), `relayed (this side's relay by ${transport.toUpperCase()})`);
      await viewer.screenshot(`relay-${transport}`);
      assert.deepEqual(viewer.faults, []);
    } finally {
      await cleanup.run();
    }
  });
}
