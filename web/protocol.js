// @ts-check
/**
 * The messages that this page exchanges with a device, as types, and the topics they travel on.
 * Fields that a device adds later are ignored (docs/protocol.md).
 */

/** The protocol version that this page speaks. */
export const VERSION = 1;

/** The numbers of the errors that the page treats in a way of their own. */
export const ErrorCode = Object.freeze({
  METHOD_NOT_FOUND: -32601,
  TOO_MANY_VIEWERS: -32003,
  CAMERA_UNAVAILABLE: -32004,
  UNSUPPORTED_CODEC: -32005,
  EXPIRED: -32006,
});

/**
 * @typedef {{ id: string, name: string, software: string }} DeviceInfo
 * @typedef {{ name: string, width?: number, height?: number, profile_level_id?: string }} StreamInfo
 *
 * @typedef {object} HelloReply
 * @property {number} version
 * @property {DeviceInfo} device
 * @property {string[]} methods
 * @property {string} nonce goes back in the offer
 * @property {number} clock_ms the device's own clock, milliseconds since its start
 * @property {RTCIceServer[]} ice_servers
 * @property {RTCIceTransportPolicy} ice_transport_policy
 * @property {StreamInfo[]} streams
 *
 * @typedef {{ session: string, sdp: string }} OfferReply
 * @typedef {{ session: string, candidates: string[] }} Candidates
 * @typedef {{ session: string, reason: string }} Close
 * @typedef {{ received_ms: number, sent_ms: number }} Clock
 * @typedef {{ estimate_bps?: number, target_bps: number, dropped: number, quality?: 'high' | 'low', limited?: boolean }} SessionStats
 *
 * @typedef {'starting' | 'live' | 'lost' | 'unsupported'} StreamState
 * @typedef {{ name: string, state: StreamState, reason?: string }} StreamStatus
 *
 * @typedef {object} Status the retained status: a hint, not a promise
 * @property {boolean} online
 * @property {string} boot changes at every start of the agent
 * @property {number} seq
 * @property {string} name
 * @property {string} software
 * @property {StreamStatus[]} streams
 * @property {string} [config_error]
 */

/**
 * The topics between `device` and this page.
 * @param {string} device
 * @param {string} peer
 */
export function topics(device, peer) {
  const prefix = `peercam/v1/${device}`;
  return { status: `${prefix}/status`, from: `${prefix}/from/${peer}`, to: `${prefix}/to/${peer}` };
}

/**
 * Whether `text` is a device's id: no character in it has a meaning in a topic.
 * @param {string} text
 */
export function isDeviceId(text) {
  return /^[A-Za-z0-9_-]{1,64}$/.test(text);
}

/**
 * A new peer id. One for each load of the page, so that the ids of its requests never meet those of an earlier load.
 */
export function newPeerId() {
  // crypto.randomUUID exists in secure contexts only, and a page from http:// in the home is not one.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `web-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
