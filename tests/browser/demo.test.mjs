/** The demo's URL in Chromium, at desktop and phone size, with the test card and with a file. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { DESKTOP, PHONE, median, openViewer, quantile, startBrowser } from './browser.mjs';
import { Cleanup, eventually, makeFile, startDemo } from './run.mjs';

/** The first picture comes in a tenth of a second; a busy machine may take ten times as long and more. */
const FIRST_PICTURE_MS = 10_000;
const COUNT_MS = 10_000;

const shared = new Cleanup();
let browser;
let cardUrl;

before(async () => {
  browser = await startBrowser(shared);
  cardUrl = await startDemo(shared);
});
after(() => shared.run());

/**
 * Over 98 % of the frames that the source makes are decoded, and the picture never freezes.
 * @param {import('./browser.mjs').Viewer} viewer
 */
async function expectSmooth(viewer) {
  const count = await viewer.countFrames(COUNT_MS);
  console.log(`decoded ${count.decoded} of ${count.made} frames in ${count.secs.toFixed(2)} s, ${count.freezes} freezes, ${count.lost} packets lost`);
  assert.ok(count.decoded > 0.98 * count.made, `over 98 % of the frames are decoded, not ${count.decoded} of ${count.made}`);
  assert.ok(count.made > 15 * count.secs, `the source makes frames: ${count.made} in ${count.secs} s`);
  assert.equal(count.freezes, 0, 'the picture never freezes');
}

for (const [name, size] of [['desktop', DESKTOP], ['phone', PHONE]]) {
  test(`the demo plays at ${name} size, and says how old the picture is`, async () => {
    const viewer = await openViewer(browser, `${cardUrl}&stats=1`, size);
    await viewer.plays(FIRST_PICTURE_MS);
    await expectSmooth(viewer);

    const info = await viewer.rpc('system.info');
    assert.ok(info.device.id && info.viewers >= 1, `system.info over the data channel is answered: ${JSON.stringify(info)}`);

    const { frames, overlay } = await viewer.readStamps(75);
    const stamped = frames.filter((frame) => frame.stamp);
    assert.ok(stamped.length > 50, `the burnt-in stamp is read from nearly every frame, not from ${stamped.length} of ${frames.length}`);
    const numbers = new Set(stamped.map((frame) => frame.stamp.frame));
    assert.ok(numbers.size > 50, `the picture moves: ${numbers.size} different frames`);
    // Pictures wait for the screen's refresh, so their ages lie in two heaps 17 ms apart. The overlay's median, over a second that ended up to
    // a second ago, can be of either; each single frame is compared below.
    const ages = stamped.map((frame) => frame.trueMs);
    const [youngMs, oldMs] = [quantile(ages, 0.1), quantile(ages, 0.9)];
    const shownMs = Number(/^(-?\d+) ms ± \d+$/.exec(overlay)?.[1] ?? NaN);
    const apart = stamped.filter((frame) => frame.saidMs !== undefined).map((frame) => Math.abs(frame.saidMs - frame.trueMs));
    const byFrame = `the same frame differs by ${median(apart).toFixed(1)} ms (median of ${apart.length})`;
    const byStamp = `burnt-in stamp ${youngMs.toFixed(1)} to ${oldMs.toFixed(1)} ms`;
    console.log(`${name}: overlay “${overlay}”, ${byStamp}; ${byFrame}`);
    assert.ok(shownMs >= youngMs - 10 && shownMs <= oldMs + 10, `the overlay’s latency (${overlay}) is the stamp’s (${byStamp}), give or take 10 ms`);
    assert.ok(apart.length > 40 && median(apart) <= 10, `frame by frame too: ${median(apart)} ms apart in ${apart.length} frames`);

    assert.match(await viewer.stat('Path'), /^direct/);
    // One second's reading, on a machine that may be busy; the count above is the exact one.
    assert.match(await viewer.stat('Frames'), /^[23]\d \/s$/);
    assert.match(await viewer.stat('Picture'), /^\d+×\d+ H264/);
    assert.notEqual(await viewer.stat('Encoder target'), 'n/a', 'the device tells its statistics once a second');
    await viewer.screenshot(`demo-${name}`);
    assert.deepEqual(viewer.faults, []);
    await viewer.page.context().close();
  });
}

test('fingers and keys zoom the picture, and keys open statistics and full screen', async () => {
  const viewer = await openViewer(browser, cardUrl, PHONE);
  await viewer.plays(FIRST_PICTURE_MS);
  const { page } = viewer;
  const scale = () => page.evaluate(() => new DOMMatrix(getComputedStyle(document.getElementById('video')).transform).a);
  const touch = await page.context().newCDPSession(page);
  const fingers = (type, ...points) =>
    touch.send('Input.dispatchTouchEvent', { type, touchPoints: points.map(([x, y], id) => ({ x, y, id })) });
  await fingers('touchStart', [150, 400], [240, 400]);
  for (let step = 1; step <= 10; step += 1) await fingers('touchMove', [150 - 8 * step, 400], [240 + 8 * step, 400]);
  await fingers('touchEnd');
  const pinched = await scale();
  assert.ok(pinched > 2 && pinched < 3.5, `two fingers from 90 to 250 pixels apart zoom by 2.8, not by ${pinched}`);
  await viewer.screenshot('zoomed');
  await page.getByRole('button', { name: 'Whole picture' }).click();
  assert.equal(await scale(), 1);
  await page.touchscreen.tap(200, 400);
  await page.touchscreen.tap(200, 400);
  await eventually('a double tap zooms', 1000, async () => (await scale()) > 2);
  await page.keyboard.press('0');
  assert.equal(await scale(), 1);
  await page.keyboard.press('s');
  assert.ok(await page.getByLabel('Statistics', { exact: true }).first().isVisible());
  await page.keyboard.press('f');
  await eventually('the page fills the screen', 2000, () => page.evaluate(() => document.fullscreenElement !== null));
  assert.deepEqual(viewer.faults, []);
  await page.context().close();
});

test('a file plays as smoothly', async () => {
  const cleanup = new Cleanup();
  try {
    const url = await startDemo(cleanup, ['--file', await makeFile(cleanup)]);
    const viewer = await openViewer(browser, `${url}&stats=1`);
    await viewer.plays(FIRST_PICTURE_MS);
    await expectSmooth(viewer);
    assert.match((await viewer.stat('Latency')) ?? '', /^\d+ ms ± \d+$/);
    await viewer.screenshot('file');
    assert.deepEqual(viewer.faults, []);
    await viewer.page.context().close();
  } finally {
    await cleanup.run();
  }
});
