// @ts-check
/**
 * Which device, by which broker: from the URL's fragment, else from `peercam.json` beside the page. Where that names the device and no
 * broker, the page came from the device itself, and speaks to it by HTTP.
 *
 * Fragment keys: `device`, `broker` (ws:// or wss://), `stream` (its name), `quality=low` (half its size, for narrow paths), `playout=smooth`, `policy=relay` (media through a TURN server
 * only), `stats=1` (statistics open). The fragment never leaves the browser, which is why it is not the query.
 */

import { isDeviceId } from './protocol.js';

/**
 * @typedef {object} Config
 * @property {string} device
 * @property {string | undefined} broker nothing: by HTTP, with the server of this page
 * @property {string | undefined} stream
 * @property {'high' | 'low'} quality
 * @property {'realtime' | 'smooth'} playout
 * @property {boolean} relayOnly
 * @property {boolean} stats
 */

/** The address does not say enough, or says something wrong: the message tells what to change. */
export class ConfigError extends Error {}

/** What the address may say, behind its `#`. */
const KEYS = ['device', 'broker', 'stream', 'quality', 'playout', 'policy', 'stats'];

/**
 * @param {string} hash the URL's fragment, with or without `#`
 * @param {() => Promise<unknown>} fetchJson fetches `peercam.json`
 * @param {string} pageProtocol `https:` or `http:`
 * @param {string} [search] the URL's query, with or without `?`
 * @returns {Promise<Config>} rejects with {@link ConfigError}, or as `fetchJson` does
 */
export async function readConfig(hash, fetchJson, pageProtocol, search = '') {
  // The query is sent to the server, which has no business with any of this.
  const misplaced = KEYS.find((key) => new URLSearchParams(search).has(key));
  if (misplaced) throw new ConfigError(`In the address, “${misplaced}” stands behind a “?”: write “#” in its place.`);
  const keys = new URLSearchParams(hash.replace(/^#/, ''));
  let device = keys.get('device');
  let broker = keys.get('broker');
  let direct = false;
  if (!device || !broker) {
    const file = /** @type {any} */ (await fetchJson());
    const own = String(file?.device ?? '');
    device ||= own;
    broker ||= String(file?.broker ?? '');
    // This server can speak for itself only, and says where it does not.
    direct = !broker && device === own && file?.http !== false;
  }
  if (!device) throw new ConfigError('The address names no device: add #device=ID&broker=ws://HOST:PORT to it.');
  if (!isDeviceId(device)) throw new ConfigError(`“${device}” is no device id: 1 to 64 letters, digits, - and _ are.`);
  if (!broker && !direct) throw new ConfigError('The address names no broker: add &broker=ws://HOST:PORT to it.');
  return {
    device,
    broker: broker ? checkBroker(broker, pageProtocol) : undefined,
    stream: keys.get('stream') || undefined,
    quality: keys.get('quality') === 'low' ? 'low' : 'high',
    playout: keys.get('playout') === 'smooth' ? 'smooth' : 'realtime',
    relayOnly: keys.get('policy') === 'relay',
    stats: keys.get('stats') === '1',
  };
}

/**
 * @param {string} broker
 * @param {string} pageProtocol
 */
function checkBroker(broker, pageProtocol) {
  let url;
  try {
    url = new URL(broker);
  } catch {
    throw new ConfigError(`“${broker}” is no broker address: one looks like ws://HOST:PORT.`);
  }
  if (url.protocol !== 'ws:' && url.protocol !== 'wss:') {
    throw new ConfigError(`A browser reaches a broker by WebSocket only: ${broker} must begin with ws:// or wss://.`);
  }
  const local = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
  if (pageProtocol === 'https:' && url.protocol === 'ws:' && !local) {
    const why = 'This page came by https, so the browser refuses an unencrypted broker';
    throw new ConfigError(`${why} like ${broker}: use wss://, or open the page by http.`);
  }
  return broker;
}
