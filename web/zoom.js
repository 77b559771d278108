// @ts-check
/**
 * Where a zoomed picture lies: pure geometry. `x` and `y` move the picture's middle away from the stage's, in CSS pixels.
 */

/** @typedef {{ scale: number, x: number, y: number }} Placement */

export const MAX_SCALE = 8;
/** @type {Readonly<Placement>} */
export const WHOLE = Object.freeze({ scale: 1, x: 0, y: 0 });

/**
 * Zooms by `factor` so that what lies under the point stays under it.
 * @param {Placement} from
 * @param {number} factor
 * @param {number} px from the stage's middle
 * @param {number} py
 * @returns {Placement}
 */
export function zoomAt(from, factor, px, py) {
  const scale = Math.min(MAX_SCALE, Math.max(1, from.scale * factor));
  const grown = scale / from.scale;
  return { scale, x: px - (px - from.x) * grown, y: py - (py - from.y) * grown };
}

/**
 * Keeps the picture over the stage: it can't be pushed away from it.
 * @param {Placement} place
 * @param {number} width of the stage
 * @param {number} height
 * @returns {Placement}
 */
export function keepInside({ scale, x, y }, width, height) {
  const mostX = ((scale - 1) * width) / 2;
  const mostY = ((scale - 1) * height) / 2;
  return { scale, x: Math.min(mostX, Math.max(-mostX, x)), y: Math.min(mostY, Math.max(-mostY, y)) };
}
