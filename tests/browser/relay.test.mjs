/** Media through a real TURN server, because the device's configuration says so. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openViewer, startBrowser } from './browser.mjs';
import { Cleanup, eventually, relayOnly, startAgent, startCoturn, startMosquitto, writeConfig } from './run.mjs';

for (const transport of ['udp', 'tcp']) {
  test(`relays of both sides over ${transport} carry the picture`, async () => {
    const cleanup = new Cleanup();
    try {
      const browser = await startBrowser(cleanup);
      const coturn = await startCoturn(cleanup);
      const broker = await startMosquitto(cleanup);
      const config = await writeConfig(cleanup, broker, relayOnly(coturn.port, transport));
      await startAgent(cleanup, config);
      const viewer = await openViewer(browser, `${config.page}#stats=1`);
      await viewer.plays(15_000);
      const count = await viewer.countFrames(5000);
      const path = await viewer.stat('Path');
      console.log(`relay over ${transport}: ${count.decoded} frames in ${count.secs.toFixed(2)} s, ${count.freezes} freezes, ${path}`);
      assert.ok(count.decoded > 0.98 * count.made, `over 98 % are decoded, not ${count.decoded} of ${count.made}`);
      assert.equal(path, `relayed (this side's relay by ${transport.toUpperCase()} and the device's relay)`);
      await viewer.screenshot(`relay-${transport}`);

      // The path falls silent, and nobody says why: a stopped server answers nothing and refuses nothing.
      coturn.program.child.kill('SIGSTOP');
      await eventually('the page says that the picture has stopped', 5000, async () => /stopped/.test(await viewer.words()));
      coturn.program.child.kill('SIGCONT');
      const returned = performance.now();
      const { framesDecoded } = await viewer.counters();
      await eventually('frames come again', 5000, async () => (await viewer.counters()).framesDecoded > framesDecoded + 30);
      await viewer.plays(5000);
      console.log(`a second of frames was there ${((performance.now() - returned) / 1000).toFixed(2)} s after the path`);
      assert.deepEqual(viewer.faults, []);
    } finally {
      await cleanup.run();
    }
  });
}
