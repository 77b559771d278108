// @ts-check
/**
 * The MQTT carrier: keeps a connection to the broker for as long as the page lives, and hands messages between it and {@link Rpc}.
 *
 * Every try is a new client and so a new WebSocket and DNS look-up; what was asked of a connection that died is asked again by whoever
 * asked, since only they know whether it still matters.
 */

import mqtt from './vendor/mqtt.esm.js';
import { Backoff } from './backoff.js';
import { topics } from './protocol.js';
import { NoReply, Rpc } from './rpc.js';

/** A message that the device did not read within this time is worthless: the offer in it has expired. */
const EXPIRY_SECS = 15;
/** A dead TCP connection is noticed after one and a half of these. Sleeping phones are handled by {@link MqttCarrier.wake}. */
const KEEPALIVE_SECS = 15;
/** A broker that is there answers sooner, even over a slow phone network. */
const CONNECT_MS = 5000;
/** CONNACK codes of brokers that speak no MQTT 5 (3.1.1, table 3.1; 5.0, table 3-1). */
const WRONG_VERSION = [1, 0x84];

/** A {@link import('./carrier.js').Carrier}. */
export class MqttCarrier {
  /** JSON-RPC with the device, over whatever connection there is. */
  rpc = new Rpc((text) => this.#publish(text));

  /** @type {import('./vendor/mqtt.esm.js').MqttClient | undefined} */ #client;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retry;
  #backoff = new Backoff(250, 2000);
  /** @type {4 | 5} */ #version = 5;
  #ready = false;
  #tries = 0;

  /**
   * @param {string} broker
   * @param {string} device
   * @param {string} peer
   * @param {import('./carrier.js').CarrierEvents} events
   */
  constructor(broker, device, peer, events) {
    this.broker = broker;
    this.peer = peer;
    this.events = events;
    this.topics = topics(device, peer);
  }

  /** Whether messages can go now. */
  get connected() {
    return this.#ready && this.#client?.connected === true;
  }

  /** Connects, now; replaces whatever connection there is. */
  connect() {
    clearTimeout(this.#retry);
    this.#drop();
    let client;
    try {
      client = mqtt.connect(this.broker, {
        clientId: this.peer,
        protocolVersion: this.#version,
        clean: true,
        keepalive: KEEPALIVE_SECS,
        // Our own pauses, because a running client's can't be cut short when the phone wakes up.
        reconnectPeriod: 0,
        connectTimeout: CONNECT_MS,
        queueQoSZero: false,
        // The others start a worker from a blob, which the page's content security policy rightly refuses.
        timerVariant: 'native',
      });
    } catch (error) {
      this.#failed(String(error));
      return;
    }
    this.#client = client;
    let why = '';
    client.on('error', (error) => {
      why = error.message;
      if (client === this.#client && WRONG_VERSION.includes(error.code ?? -1)) this.#version = 4;
    });
    client.on('connect', () => this.#subscribe(client));
    client.on('message', (topic, payload, packet) => {
      if (client === this.#client) this.#message(topic, new TextDecoder().decode(payload), packet.retain === true);
    });
    client.on('close', () => {
      if (client === this.#client) this.#failed(why);
    });
  }

  /**
   * The page comes back from somewhere: a connection that is down is tried at once.
   * @param {boolean} distrust also replaces one that seems up: its socket may have died while nobody listened
   */
  wake(distrust) {
    if (distrust || !this.connected) {
      this.#backoff.reset();
      this.connect();
    }
  }

  /**
   * Asks the broker to acknowledge again what it has acknowledged before.
   * @param {number} withinMs
   * @returns {Promise<boolean>}
   */
  proves(withinMs) {
    const client = this.#client;
    if (!client || !this.connected) return Promise.resolve(false);
    return new Promise((resolve) => {
      setTimeout(() => resolve(false), withinMs);
      client.subscribe([this.topics.to], { qos: 1 }, (error) => resolve(!error));
    });
  }

  /** @param {import('./vendor/mqtt.esm.js').MqttClient} client */
  #subscribe(client) {
    client.subscribe([this.topics.to, this.topics.status], { qos: 1 }, (error) => {
      if (client !== this.#client) return;
      if (error) {
        this.#failed(`the broker refused the subscription: ${error.message}`);
        return;
      }
      this.#ready = true;
      this.#tries = 0;
      this.#backoff.reset();
      this.events.connected();
    });
  }

  /**
   * @param {string} topic
   * @param {string} text
   * @param {boolean} retained
   */
  #message(topic, text, retained) {
    // A retained reply was meant for somebody in the past.
    if (topic === this.topics.to && !retained) this.rpc.receive(text);
    if (topic !== this.topics.status) return;
    try {
      const status = JSON.parse(text);
      if (typeof status?.online === 'boolean') this.events.status({ ...status, streams: status.streams ?? [] }, retained);
    } catch {
      // Not a status: somebody else's litter, or a cleared topic.
    }
  }

  /** @param {string} text */
  #publish(text) {
    if (!this.connected || !this.#client) throw new NoReply('The broker is not connected.');
    const properties = this.#version === 5 ? { messageExpiryInterval: EXPIRY_SECS } : undefined;
    this.#client.publish(this.topics.from, text, { qos: 0, properties }, () => {});
  }

  /** @param {string} why */
  #failed(why) {
    this.#drop();
    this.#tries += 1;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.connect(), this.#backoff.next());
    this.events.lost(this.#tries, why);
  }

  #drop() {
    const client = this.#client;
    this.#client = undefined;
    this.#ready = false;
    client?.end(true);
    this.rpc.drop('The connection to the broker was lost.');
  }
}
