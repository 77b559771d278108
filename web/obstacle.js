// @ts-check
/**
 * Why no way to the device was found, as far as a page can know: what was tried, and what most likely stood in the way. Pure.
 */

/**
 * @typedef {object} Attempt
 * @property {string[]} urls of the servers that the device told of (RFC 7064, RFC 7065)
 * @property {boolean} relayOnly
 * @property {{ url: string, code: number }[]} errors of the servers, as in RTCPeerConnectionIceErrorEvent
 * @property {Set<string>} own the types of this side's candidates
 * @property {Set<string>} device those of the device's
 */

/** What a TURN server says (RFC 8656, 18 and 20; RFC 8489, 14.8). */
const UNAUTHORIZED = [401, 403, 438, 441];
const FULL = [486, 508];

/**
 * @param {Attempt} attempt
 * @returns {string} sentences
 */
export function describeObstacle(attempt) {
  return `${tried(attempt)} ${obstacle(attempt)}`;
}

/** @param {Attempt} attempt */
function tried({ urls, relayOnly }) {
  const relays = [...new Set(urls.filter(isTurn).map(host))].map((name) => {
    const transports = new Set(urls.filter((url) => isTurn(url) && host(url) === name).map(transport));
    return `through the TURN server ${name} (${[...transports].join(', ')})`;
  });
  const ways = relayOnly ? relays : ['directly', ...relays];
  return ways.length > 0 ? `Tried ${ways.join(' and ')}.` : 'There was nothing to try.';
}

/** @param {Attempt} attempt */
function obstacle({ urls, relayOnly, errors, own, device }) {
  const turn = urls.filter(isTurn);
  if (turn.length === 0) {
    if (relayOnly) return 'Only relayed paths are allowed, and the device knows no TURN server.';
    // Whoever asked and got no answer could send no UDP; whoever never asked can't tell.
    const silent = urls.length > 0 && !own.has('srflx');
    const network = silent ? 'This network seems to let no UDP out' : 'A firewall stands between, or both sides are behind strict routers';
    return `${network}, and the device knows no TURN server: one that is reached by TLS gets through almost everywhere.`;
  }
  const name = (/** @type {string[]} */ list) => [...new Set(list.map(host))].join(', ');
  /** @param {number[]} codes */
  const said = (codes) => errors.filter(({ url, code }) => isTurn(url) && codes.includes(code)).map(({ url }) => url);
  if (!own.has('relay')) {
    const refused = said(UNAUTHORIZED);
    if (refused.length > 0) return `The TURN server ${name(refused)} refuses the user name or password that the device has for it.`;
    const full = said(FULL);
    if (full.length > 0) return `The TURN server ${name(full)} is full.`;
    if (turn.every((url) => transport(url) === 'UDP')) {
      return `The TURN server ${name(turn)} does not answer. If it runs, this network lets no UDP out: a URL of it by TLS would help (turns:).`;
    }
    return `The TURN server ${name(turn)} does not answer. Is it running, and does its firewall let it be reached?`;
  }
  if (relayOnly && !device.has('relay')) {
    return 'This side reaches the relay; the device may not, or the relay does not reach the device.';
  }
  return 'Both sides told where they are, and nothing got through: the relay itself may be kept from reaching the device.';
}

/** @param {string} url */
function isTurn(url) {
  return /^turns?:/i.test(url);
}

/** @param {string} url */
function host(url) {
  return url.replace(/^\w+:/, '').replace(/\?.*$/, '').replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
}

/** @param {string} url */
function transport(url) {
  if (/^turns:/i.test(url)) return /transport=udp/i.test(url) ? 'DTLS' : 'TLS';
  return /transport=tcp/i.test(url) ? 'TCP' : 'UDP';
}
