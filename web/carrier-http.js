// @ts-check
/**
 * The HTTP carrier: what this page says goes by POST and is answered at once; what the device says of its own accord comes as
 * Server-Sent Events.
 */

import { Backoff } from './backoff.js';
import { NoReply, Rpc } from './rpc.js';

/** A farewell has to leave although its page is going; browsers promise that for little texts only. */
const FAREWELL_BYTES = 1024;

/** A {@link import('./carrier.js').Carrier}. */
export class HttpCarrier {
  rpc = new Rpc((text) => this.#post(text));

  /** @type {EventSource | undefined} */ #source;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retry;
  #backoff = new Backoff(250, 2000);
  #ready = false;
  #tries = 0;

  /**
   * @param {string} url where this page's own messages go; `/events` beneath it are the device's
   * @param {import('./carrier.js').CarrierEvents} events
   */
  constructor(url, events) {
    this.url = url;
    this.events = events;
  }

  get connected() {
    return this.#ready;
  }

  connect() {
    clearTimeout(this.#retry);
    this.#drop();
    const source = new EventSource(`${this.url}/events`);
    this.#source = source;
    let first = true;
    source.addEventListener('open', () => {
      if (source !== this.#source) return;
      this.#ready = true;
      this.#tries = 0;
      this.#backoff.reset();
      this.events.connected();
    });
    source.addEventListener('message', (event) => {
      if (source === this.#source) this.rpc.receive(String(event.data));
    });
    source.addEventListener('status', (event) => {
      if (source !== this.#source) return;
      this.#status(String(event.data), first);
      first = false;
    });
    // The browser would try again by itself, but never after a refusal, and not when the phone wakes up.
    source.addEventListener('error', () => {
      if (source === this.#source) this.#failed();
    });
  }

  /** A stream of events can't be asked; a new one costs a request. */
  async proves() {
    return false;
  }

  /** @param {boolean} distrust */
  wake(distrust) {
    if (distrust || !this.connected) {
      this.#backoff.reset();
      this.connect();
    }
  }

  /**
   * @param {string} text
   * @param {boolean} found
   */
  #status(text, found) {
    try {
      const status = JSON.parse(text);
      if (typeof status?.online === 'boolean') this.events.status({ ...status, streams: status.streams ?? [] }, found);
    } catch {
      // Whatever serves this page now, it is not the device.
    }
  }

  /** @param {string} text */
  #post(text) {
    const source = this.#source;
    if (!this.#ready) throw new NoReply('The device is not connected.');
    const keepalive = text.length < FAREWELL_BYTES;
    fetch(this.url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: text, keepalive, cache: 'no-store' })
      .then(async (response) => {
        // Errors of HTTP's own kind are no JSON-RPC, and the request is asked again after its time.
        if (response.status === 200 || response.status === 400) this.rpc.receive(await response.text());
      })
      .catch(() => {
        // The events would go on seeming alive until the system gives their connection up.
        if (source === this.#source && this.#ready) this.#failed();
      });
  }

  #failed() {
    this.#drop();
    this.#tries += 1;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.connect(), this.#backoff.next());
    this.events.lost(this.#tries, '');
  }

  #drop() {
    this.#source?.close();
    this.#source = undefined;
    this.#ready = false;
  }
}
