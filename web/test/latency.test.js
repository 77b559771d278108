// @ts-check
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ClockSync, LatencyMeter, captureTime } from '../latency.js';

const NTP = 2_208_988_800_000;

/**
 * Stamps of an exchange over a path of `there` and `back` milliseconds with a device whose clock is `offset` ahead.
 * @param {number} sent @param {number} there @param {number} back @param {number} offset
 */
function exchange(sent, there, back, offset) {
  const remoteReceived = sent + there + offset;
  return { sent, remoteReceived, remoteSent: remoteReceived + 2, received: sent + there + 2 + back };
}

test('the offset of an even path is exact, that of an uneven one within its error', () => {
  for (const [there, back] of [[10, 10], [0, 20], [20, 0], [3, 9]]) {
    const clock = new ClockSync();
    clock.add(exchange(1e12, /** @type {number} */ (there), /** @type {number} */ (back), 5000));
    const best = clock.best();
    assert.ok(best && Math.abs(best.offset - 5000) <= best.error + 1e-6, `${there} ms there, ${back} ms back`);
  }
});

test('the shortest way wins, until it is too old', () => {
  const clock = new ClockSync();
  clock.add(exchange(1e12, 1, 1, 100));
  clock.add(exchange(1e12 + 1000, 50, 0, 100));
  assert.equal(clock.best()?.error, 1);
  clock.add(exchange(1e12 + 31_500, 50, 0, 100));
  assert.equal(clock.best()?.error, 25);
});

test('after a sleep in which the page’s clock stood still, the old offset is forgotten', () => {
  const clock = new ClockSync();
  clock.add(exchange(1e12, 1, 1, 100));
  clock.add(exchange(1e12 + 500, 20, 20, 600_100));
  assert.deepEqual(clock.best(), { offset: 600_100, error: 20 });
});

test('a clock that was set during an exchange spoils nothing', () => {
  const clock = new ClockSync();
  clock.add({ sent: 1000, remoteReceived: 5000, remoteSent: 4000, received: 1010 });
  clock.add({ sent: 1000, remoteReceived: 5000, remoteSent: 9000, received: 1010 });
  assert.equal(clock.best(), undefined);
});

test('the capture time of a frame comes from a packet near it, across the wrap of RTP time', () => {
  assert.equal(captureTime({ captureTimestamp: NTP + 1.7e12, rtpTimestamp: 9000 }, 9000), 1.7e12);
  assert.equal(captureTime({ captureTimestamp: NTP + 1.7e12, rtpTimestamp: 9000 }, 0), 1.7e12 - 100);
  assert.equal(captureTime({ captureTimestamp: NTP + 1.7e12, rtpTimestamp: 0x100 }, 0xffffff00), 1.7e12 - 512 / 90);
  assert.equal(captureTime({ captureTimestamp: 1.7e12, rtpTimestamp: 0 }, 0), 1.7e12, 'Unix time, which the specification allows');
  assert.equal(captureTime({ rtpTimestamp: 0 }, 0), undefined);
  assert.equal(captureTime(undefined, 0), undefined);
});

test('latency is presentation minus capture on one clock; unknown without a stamp or the clock', () => {
  const meter = new LatencyMeter();
  const origin = 1.7e12;
  const frame = { rtpTimestamp: 90, presentationTime: 1040, expectedDisplayTime: 1033 };
  const source = { captureTimestamp: NTP + origin + 5000 + 1000, rtpTimestamp: 90 };
  meter.frame(frame, source, origin);
  assert.equal(meter.read(), undefined, 'no clock yet');
  meter.clock.add(exchange(origin, 1, 1, 5000));
  meter.frame(frame, { rtpTimestamp: 90 }, origin);
  assert.equal(meter.read(), undefined, 'no stamp');
  meter.frame(frame, source, origin);
  assert.deepEqual(meter.read(), {
    medianMs: 40,
    errorMs: 1,
    last: { rtpTimestamp: 90, capturedMs: origin + 6000, presentedMs: origin + 1040, latencyMs: 40, errorMs: 1 },
  });
});

test('one late frame does not move the shown value', () => {
  const meter = new LatencyMeter();
  meter.clock.add(exchange(0, 1, 1, 0));
  for (let n = 0; n < 30; n += 1) {
    const late = n === 17 ? 400 : 0;
    meter.frame(
      { rtpTimestamp: n * 3000, presentationTime: 1000 + n * 33 + 40 + late, expectedDisplayTime: 0 },
      { captureTimestamp: 1000 + n * 33, rtpTimestamp: n * 3000 },
      0,
    );
  }
  assert.equal(Math.round(meter.read()?.medianMs ?? 0), 40);
});
