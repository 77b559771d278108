// @ts-check
/**
 * How messages travel between this page and its device: by a broker, or by HTTP where the device itself serves the page.
 */

import { HttpCarrier } from './carrier-http.js';
import { MqttCarrier } from './carrier-mqtt.js';

/**
 * @typedef {object} Carrier keeps a connection for as long as the page lives
 * @property {import('./rpc.js').Rpc} rpc JSON-RPC with the device, over whatever connection there is
 * @property {boolean} connected whether messages can go now
 * @property {() => void} connect connects, now; replaces whatever connection there is
 * @property {(withinMs: number) => Promise<boolean>} proves whether what seems up is: a dead socket says nothing for minutes
 * @property {(distrust: boolean) => void} wake the page comes back from somewhere: a connection that is down is tried at once, and with
 *   `distrust` also one that seems up, since its socket may have died while nobody listened
 *
 * @typedef {object} CarrierEvents
 * @property {() => void} connected messages can go, and will be heard
 * @property {(tries: number, why: string) => void} lost nothing but this is said until the next `connected`; called after each failed try
 * @property {(status: import('./protocol.js').Status, retained: boolean) => void} status retained: as it was found, not a change
 */

/**
 * @param {{ broker: string | undefined, device: string }} config
 * @param {string} peer
 * @param {CarrierEvents} events
 * @returns {Carrier}
 */
export function openCarrier({ broker, device }, peer, events) {
  return broker === undefined ? new HttpCarrier(new URL(`rpc/${peer}`, document.baseURI).href, events) : new MqttCarrier(broker, device, peer, events);
}
