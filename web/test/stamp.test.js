import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readStamp } from '../../tests/browser/stamp.mjs';

/**
 * The bottom of a picture with these bits in it, as `src/capture/stamp.rs` describes it.
 * @param {string} bits 72 of them
 */
function draw(bits, width, height) {
  const top = Math.floor((13 * height) / 15);
  const rgba = new Uint8ClampedArray(width * (height - top) * 4).fill(90);
  for (let row = 0; row < 2; row += 1) {
    for (let column = 0; column < 40; column += 1) {
      const white = column < 4 ? (row + column) % 2 === 0 : bits[row * 36 + column - 4] === '1';
      for (let y = Math.floor(((13 + row) * height) / 15); y < Math.floor(((14 + row) * height) / 15); y += 1) {
        for (let x = Math.floor((column * width) / 40); x < Math.floor(((column + 1) * width) / 40); x += 1) {
          rgba.fill(white ? 220 : 30, ((y - top) * width + x) * 4, ((y - top) * width + x) * 4 + 3);
        }
      }
    }
  }
  return { rgba, top };
}

/** 0x8000_0000_0001 ms, picture 0x8001, and their CRC-8. */
const BYTES = [0x80, 0, 0, 0, 0, 1, 0x80, 1, 0x65];
const bitsOf = (bytes) => bytes.map((byte) => byte.toString(2).padStart(8, '0')).join('');

test('what is drawn is read, at any size', () => {
  for (const [width, height] of [[1280, 720], [641, 479], [320, 240]]) {
    const { rgba, top } = draw(bitsOf(BYTES), width, height);
    assert.deepEqual(readStamp(rgba, width, height, top), { unixMs: 0x8000_0000_0001, frame: 0x8001 }, `${width}x${height}`);
  }
});

test('a wrong bit, a grey and a black picture are no stamp', () => {
  const wrong = draw(bitsOf([...BYTES.slice(0, 7), 2, BYTES[8]]), 640, 480);
  assert.equal(readStamp(wrong.rgba, 640, 480, wrong.top), undefined);
  for (const level of [0, 128]) assert.equal(readStamp(new Uint8ClampedArray(640 * 64 * 4).fill(level), 640, 480, 416), undefined);
});
