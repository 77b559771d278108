// @ts-check
/**
 * How old a picture is when it is shown: from its capture on the device to its presentation here.
 *
 * The device stamps every picture with its capture time (RTP header extension abs-capture-time). The browser tells the stamp of a packet
 * together with its RTP time, and for each frame that it shows the RTP time and the time of its presentation. What is left is how far the
 * two clocks are apart: asked over the data channel, as NTP does.
 *
 * Times here are milliseconds since 1970: `local` on this page's clock, `remote` on the device's.
 */

/** From NTP's 1900 to Unix's 1970. */
const NTP_TO_UNIX_MS = 2_208_988_800_000;
/** RTP time of video runs at 90 kHz (RFC 6184, 8.2.1). */
const RTP_TICKS_PER_MS = 90;
/** Crystals drift apart by up to 100 ppm: 3 ms in this time, so that an older sample is worth less than a new one with a longer way. */
const WINDOW_MS = 30_000;
const DRIFT_MS = 3;
/** Frames over which the shown value is the median: about a second. */
const MEDIAN_FRAMES = 30;

/** The page's clock. Monotonic, unlike Date.now. */
export function localNow() {
  return performance.timeOrigin + performance.now();
}

/**
 * One exchange: asked at `sent`, received there at `remoteReceived`, answered there at `remoteSent`, back at `received`.
 * @typedef {{ sent: number, remoteReceived: number, remoteSent: number, received: number }} ClockStamps
 *
 * Remote minus local, give or take `error`.
 * @typedef {{ offset: number, error: number }} ClockOffset
 */

/** The offset between the clocks, from the exchange with the shortest way of a recent window (RFC 5905, 10). */
export class ClockSync {
  /** @type {{ at: number, offset: number, error: number }[]} */ #samples = [];

  /** @param {ClockStamps} stamps */
  add({ sent, remoteReceived, remoteSent, received }) {
    const roundTrip = received - sent - (remoteSent - remoteReceived);
    // A clock was set in between.
    if (!(roundTrip >= 0) || remoteSent < remoteReceived) return;
    const offset = (remoteReceived - sent + (remoteSent - received)) / 2;
    // The way there may have taken all of the round trip or nothing of it.
    const error = roundTrip / 2;
    // Older samples that can't be true together with this one are from before a clock was set, or stood still while the phone slept.
    this.#samples = this.#samples.filter(
      (sample) => received - sample.at < WINDOW_MS && Math.abs(sample.offset - offset) <= sample.error + error + DRIFT_MS,
    );
    this.#samples.push({ at: received, offset, error });
  }

  /** @returns {ClockOffset | undefined} */
  best() {
    /** @type {ClockOffset | undefined} */
    let best;
    for (const { offset, error } of this.#samples) if (!best || error < best.error) best = { offset, error };
    return best;
  }
}

/**
 * When the frame with RTP time `rtp` was captured, on the device's clock, from the stamp of a packet near it.
 * @param {{ captureTimestamp?: number, rtpTimestamp: number } | undefined} source as of RTCRtpReceiver.getSynchronizationSources
 * @param {number} rtp
 * @returns {number | undefined} milliseconds since 1970
 */
export function captureTime(source, rtp) {
  if (source?.captureTimestamp === undefined) return undefined;
  // Chromium gives NTP time; the specification left room for Unix time. The two are 70 years apart.
  const stamp = source.captureTimestamp >= NTP_TO_UNIX_MS + 1e12 ? source.captureTimestamp - NTP_TO_UNIX_MS : source.captureTimestamp;
  // RTP time wraps at 32 bits: `| 0` reads the difference as signed.
  const ahead = (source.rtpTimestamp - rtp) | 0;
  return stamp - ahead / RTP_TICKS_PER_MS;
}

/**
 * One frame's latency.
 * @typedef {object} FrameLatency
 * @property {number} rtpTimestamp
 * @property {number} capturedMs on the device's clock
 * @property {number} presentedMs on the page's clock
 * @property {number} latencyMs
 * @property {number} errorMs the clock offset's
 *
 * @typedef {{ medianMs: number, errorMs: number, last: FrameLatency }} Latency
 */

/** Collects frames and says what to show. */
export class LatencyMeter {
  clock = new ClockSync();
  /** @type {FrameLatency[]} */ #frames = [];

  /**
   * A frame is shown.
   * @param {{ rtpTimestamp?: number, presentationTime: number, expectedDisplayTime: number }} frame as of requestVideoFrameCallback
   * @param {{ captureTimestamp?: number, rtpTimestamp: number } | undefined} source
   * @param {number} [timeOrigin] of the frame's times
   */
  frame({ rtpTimestamp, presentationTime, expectedDisplayTime }, source, timeOrigin = performance.timeOrigin) {
    const clock = this.clock.best();
    const capturedMs = rtpTimestamp === undefined ? undefined : captureTime(source, rtpTimestamp);
    if (!clock || rtpTimestamp === undefined || capturedMs === undefined) return;
    // The display time is that of a screen refresh, which can lie before the moment when the frame was handed over for it.
    const presentedMs = timeOrigin + Math.max(presentationTime, expectedDisplayTime);
    const latencyMs = presentedMs + clock.offset - capturedMs;
    this.#frames.push({ rtpTimestamp, capturedMs, presentedMs, latencyMs, errorMs: clock.error });
    if (this.#frames.length > MEDIAN_FRAMES) this.#frames.shift();
  }

  /** @returns {Latency | undefined} nothing while a stamp or the clock offset is missing */
  read() {
    const last = this.#frames.at(-1);
    if (!last) return undefined;
    const sorted = this.#frames.map((frame) => frame.latencyMs).sort((a, b) => a - b);
    return { medianMs: /** @type {number} */ (sorted[sorted.length >> 1]), errorMs: last.errorMs, last };
  }
}
