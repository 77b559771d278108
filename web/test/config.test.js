// @ts-check
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import { Backoff } from '../backoff.js';
import { ConfigError, readConfig } from '../config.js';
import { isDeviceId } from '../protocol.js';
import { WHOLE, keepInside, zoomAt } from '../zoom.js';

const nothing = () => Promise.reject(new ConfigError('no file'));

test('the fragment says all, and the file is not asked', async () => {
  const hash = `#device=cam1&broker=${encodeURIComponent('ws://10.0.0.1:8083/mqtt')}&stream=yard&quality=low&playout=smooth&policy=relay&stats=1`;
  assert.deepEqual(await readConfig(hash, nothing, 'http:'), {
    device: 'cam1', broker: 'ws://10.0.0.1:8083/mqtt', stream: 'yard', quality: 'low', playout: 'smooth', relayOnly: true, stats: true,
  });
});

test('the file fills what the fragment leaves open', async () => {
  const config = await readConfig('#stats=1', async () => ({ device: 'cam2', broker: 'wss://b/' }), 'https:');
  assert.deepEqual(config, { device: 'cam2', broker: 'wss://b/', stream: undefined, quality: 'high', playout: 'realtime', relayOnly: false, stats: true });
});

test('a device that serves the page and names no broker is spoken to by HTTP', async () => {
  const own = async () => ({ device: 'cam3' });
  assert.equal((await readConfig('', own, 'http:')).broker, undefined);
  assert.equal((await readConfig('#device=cam3', own, 'http:')).device, 'cam3');
  assert.equal((await readConfig('#broker=ws://b:1', own, 'http:')).broker, 'ws://b:1', 'the address has the last word');
  await assert.rejects(readConfig('#device=other', own, 'http:'), /names no broker/, 'it speaks for itself only');
  await assert.rejects(readConfig('', async () => ({ device: 'cam3', http: false }), 'http:'), /names no broker/, 'it does not speak');
});

test('a wrong address is refused with a sentence', async () => {
  /** @type {[string, string, RegExp][]} */
  const table = [
    ['#device=a/b&broker=ws://h:1', 'http:', /no device id/],
    ['#device=a&broker=mqtt://h:1', 'http:', /must begin with ws/],
    ['#device=a&broker=nonsense', 'http:', /no broker address/],
    ['#device=a&broker=ws://h:1', 'https:', /use wss/],
    ['#device=a', 'http:', /no file/],
  ];
  for (const [hash, protocol, sentence] of table) {
    await assert.rejects(readConfig(hash, nothing, protocol), (error) => error instanceof ConfigError && sentence.test(error.message), hash);
  }
  await readConfig('#device=a&broker=ws://127.0.0.1:1', nothing, 'https:');
});

test('settings behind a question mark are refused with what to write', async () => {
  await assert.rejects(readConfig('#device=a&broker=ws://b:1', nothing, 'http:', '?stream=yard'), /“stream” stands behind a “\?”/);
  await readConfig('#device=a&broker=ws://b:1', nothing, 'http:', '?utm_source=mail');
});

test('device ids need no escaping', () => {
  assert.ok(isDeviceId('Az09-_'));
  for (const foreign of ['', 'a/b', '+', '#', 'ä', 'x'.repeat(65)]) assert.ok(!isDeviceId(foreign), foreign);
});

test('pauses double up to the limit, with jitter, and begin anew after a success', () => {
  const longest = new Backoff(250, 2000, () => 1);
  assert.deepEqual([1, 2, 3, 4, 5].map(() => longest.next()), [250, 500, 1000, 2000, 2000]);
  longest.reset();
  assert.equal(longest.next(), 250);
  assert.equal(new Backoff(250, 2000, () => 0).next(), 125);
});

test('zooming keeps the point under the finger and the picture over the stage', () => {
  const zoomed = zoomAt(WHOLE, 2, 100, 50);
  // What lay at (100, 50) from the middle still does.
  assert.deepEqual([100 * zoomed.scale + zoomed.x, 50 * zoomed.scale + zoomed.y], [100, 50]);
  assert.deepEqual(keepInside({ scale: 2, x: 9999, y: -9999 }, 400, 200), { scale: 2, x: 200, y: -100 });
  const whole = keepInside(zoomAt({ scale: 2, x: 50, y: 5 }, 0.1, 0, 0), 400, 200);
  assert.deepEqual([whole.scale, Math.abs(whole.x), Math.abs(whole.y)], [1, 0, 0]);
});

test('the vendored code is the one that vendor/README.md names', async () => {
  const vendor = new URL('../vendor/', import.meta.url);
  const hash = createHash('sha256').update(await readFile(new URL('mqtt.esm.js', vendor))).digest('hex');
  assert.match(await readFile(new URL('README.md', vendor), 'utf8'), new RegExp(hash));
});
