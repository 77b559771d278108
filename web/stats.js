// @ts-check
/**
 * From the browser's counters to what people read: rates between two looks, and the path in use.
 */

/**
 * @typedef {object} Stats
 * @property {number | undefined} fps decoded frames a second
 * @property {number | undefined} kbps received, with headers
 * @property {number} framesDecoded
 * @property {number} framesDropped
 * @property {number} freezes
 * @property {number} packetsReceived
 * @property {number} packetsLost
 * @property {number} nacks
 * @property {number} keyFrameRequests
 * @property {number | undefined} jitterBufferMs mean since the last look
 * @property {number | undefined} rttMs
 * @property {number | undefined} width
 * @property {number | undefined} height
 * @property {string | undefined} codec such as `H264`
 * @property {boolean | undefined} relayed
 * @property {string | undefined} path in words
 */

/**
 * How many frames came and how many could be decoded.
 * @param {Iterable<[string, any]>} report as of RTCPeerConnection.getStats
 */
export function countFrames(report) {
  const video = [...new Map(report).values()].find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
  return { received: Number(video?.framesReceived ?? 0), decoded: Number(video?.framesDecoded ?? 0) };
}

/** @typedef {{ at: number, frames: number, bytes: number, emitted: number, delay: number }} Look */

export class StatsReader {
  /** @type {Look | undefined} */ #last;
  /** @type {Stats | undefined} */ #stats;

  /** The newest reading. */
  get stats() {
    return this.#stats;
  }

  /**
   * @param {Iterable<[string, any]>} report as of RTCPeerConnection.getStats
   * @returns {Stats | undefined} nothing before video arrives
   */
  read(report) {
    /** @type {Map<string, any>} */
    const byId = new Map(report);
    const all = [...byId.values()];
    const video = all.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
    if (!video) return undefined;
    const look = {
      at: video.timestamp,
      frames: video.framesDecoded ?? 0,
      bytes: (video.bytesReceived ?? 0) + (video.headerBytesReceived ?? 0),
      emitted: video.jitterBufferEmittedCount ?? 0,
      delay: video.jitterBufferDelay ?? 0,
    };
    const last = this.#last;
    const secs = last ? (look.at - last.at) / 1000 : 0;
    const emitted = last ? look.emitted - last.emitted : 0;
    this.#last = look;
    this.#stats = {
      fps: last && secs > 0 ? (look.frames - last.frames) / secs : undefined,
      kbps: last && secs > 0 ? ((look.bytes - last.bytes) * 8) / 1000 / secs : undefined,
      jitterBufferMs: last && emitted > 0 ? ((look.delay - last.delay) / emitted) * 1000 : undefined,
      framesDecoded: look.frames,
      framesDropped: video.framesDropped ?? 0,
      freezes: video.freezeCount ?? 0,
      packetsReceived: video.packetsReceived ?? 0,
      packetsLost: video.packetsLost ?? 0,
      nacks: video.nackCount ?? 0,
      keyFrameRequests: (video.pliCount ?? 0) + (video.firCount ?? 0),
      width: video.frameWidth,
      height: video.frameHeight,
      codec: codecName(byId.get(video.codecId)),
      ...readPath(byId, all),
    };
    return this.#stats;
  }
}

/** @param {any} codec */
function codecName(codec) {
  if (!codec) return undefined;
  // Its profile is what was negotiated, not what the camera sends.
  return String(codec.mimeType ?? '').replace('video/', '');
}

/**
 * @param {Map<string, any>} byId
 * @param {any[]} all
 */
function readPath(byId, all) {
  const transport = all.find((entry) => entry.type === 'transport');
  const pair =
    byId.get(transport?.selectedCandidatePairId) ??
    all.find((entry) => entry.type === 'candidate-pair' && entry.nominated && entry.state === 'succeeded');
  const local = byId.get(pair?.localCandidateId);
  const remote = byId.get(pair?.remoteCandidateId);
  if (!pair || !local || !remote) return { rttMs: undefined, relayed: undefined, path: undefined };
  const relays = [];
  if (local.candidateType === 'relay') relays.push(`this side's relay by ${(local.relayProtocol ?? 'udp').toUpperCase()}`);
  if (remote.candidateType === 'relay') relays.push("the device's relay");
  const protocol = String(local.protocol ?? 'udp').toUpperCase();
  return {
    rttMs: pair.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000,
    relayed: relays.length > 0,
    path: relays.length > 0 ? `relayed (${relays.join(' and ')})` : `direct (${protocol})`,
  };
}
