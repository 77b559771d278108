// @ts-check
/**
 * Pauses between tries: doubling from `firstMs` to `mostMs`, with jitter so that many pages do not come back in one moment.
 */
export class Backoff {
  #tries = 0;

  /**
   * @param {number} firstMs
   * @param {number} mostMs
   * @param {() => number} [random] from 0 to 1
   */
  constructor(firstMs, mostMs, random = Math.random) {
    this.firstMs = firstMs;
    this.mostMs = mostMs;
    this.random = random;
  }

  /** The next pause in milliseconds. */
  next() {
    const full = Math.min(this.mostMs, this.firstMs * 2 ** this.#tries);
    this.#tries = Math.min(this.#tries + 1, 16);
    return full * (0.5 + 0.5 * this.random());
  }

  /** After a success. */
  reset() {
    this.#tries = 0;
  }
}
