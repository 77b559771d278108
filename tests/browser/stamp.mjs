/**
 * Reads the test card's machine-readable stamp off a picture. The layout is described in `src/capture/stamp.rs`.
 *
 * One function that needs nothing from outside itself, because it also runs inside the page.
 *
 * @param {Uint8ClampedArray} rgba the bottom of the picture: 4 bytes a pixel, rows without padding
 * @param {number} width of the picture
 * @param {number} height of the whole picture
 * @param {number} top the row of the picture that `rgba` begins with
 * @returns {{ unixMs: number, frame: number } | undefined} nothing where no stamp can be trusted
 */
export function readStamp(rgba, width, height, top) {
  const columns = 40;
  const rows = 2;
  const heightInCells = 15;
  const calibration = 4;
  const luma = (x, y) => {
    const at = ((y - top) * width + x) * 4;
    return 0.2126 * rgba[at] + 0.7152 * rgba[at + 1] + 0.0722 * rgba[at + 2];
  };
  const means = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const left = Math.floor((column * width) / columns);
      const right = Math.floor(((column + 1) * width) / columns);
      const up = Math.floor(((heightInCells - rows + row) * height) / heightInCells);
      const down = Math.floor(((heightInCells - rows + row + 1) * height) / heightInCells);
      const marginX = Math.floor((right - left) / 4);
      const marginY = Math.floor((down - up) / 4);
      let sum = 0;
      let count = 0;
      for (let y = up + marginY; y < down - marginY; y += 1) {
        for (let x = left + marginX; x < right - marginX; x += 1) {
          sum += luma(x, y);
          count += 1;
        }
      }
      means.push(sum / count);
    }
  }
  const white = [];
  const black = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < calibration; column += 1) ((row + column) % 2 === 0 ? white : black).push(means[row * columns + column]);
  }
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const threshold = (mean(white) + mean(black)) / 2;
  if (!(mean(white) - mean(black) >= 48)) return undefined;
  if (white.some((value) => value <= threshold) || black.some((value) => value >= threshold)) return undefined;
  const bytes = new Uint8Array(9);
  for (let bit = 0; bit < 72; bit += 1) {
    const cell = Math.floor(bit / 36) * columns + calibration + (bit % 36);
    if (means[cell] > threshold) bytes[bit >> 3] |= 0x80 >> (bit & 7);
  }
  let crc = 0;
  for (let at = 0; at < 8; at += 1) {
    crc ^= bytes[at];
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : crc << 1;
  }
  if (crc !== bytes[8]) return undefined;
  let unixMs = 0;
  for (let at = 0; at < 6; at += 1) unixMs = unixMs * 256 + bytes[at];
  return { unixMs, frame: bytes[6] * 256 + bytes[7] };
}
