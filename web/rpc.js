// @ts-check
/**
 * JSON-RPC 2.0 over anything that carries text: MQTT and the data channel alike.
 *
 * Replies find their request by id; a request without a reply fails after its time; what is no JSON-RPC is ignored, since a carrier may
 * bring anything.
 */

import { ErrorCode } from './protocol.js';

/** How long a request waits for its reply, in milliseconds, if its caller says nothing else. */
const REPLY_MS = 5000;

/** The other side refused: a code for programs, a sentence for people. */
export class RpcError extends Error {
  /** @param {{ code: number, message: string, data?: any }} error */
  constructor(error) {
    super(error.message);
    this.name = 'RpcError';
    this.code = error.code;
    /** @type {any} */
    this.data = error.data;
  }
}

/** No reply came in time, or the carrier is gone. */
export class NoReply extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = 'NoReply';
  }
}

/**
 * @typedef {{ timeoutMs?: number, signal?: AbortSignal }} RequestOptions
 * @typedef {{ resolve: (result: any) => void, reject: (error: Error) => void }} Waiting
 */

export class Rpc {
  /** @type {(text: string) => void} */ #send;
  /** @type {Map<number, Waiting>} */ #waiting = new Map();
  /** @type {Map<string, (params: any) => void>} */ #handlers = new Map();
  #nextId = 1;
  #closed = '';

  /** @param {(text: string) => void} send hands one message to the carrier; may throw */
  constructor(send) {
    this.#send = send;
  }

  /**
   * Asks and waits for the reply.
   * @param {string} method
   * @param {object} [params]
   * @param {RequestOptions} [options]
   * @returns {Promise<any>} the result; rejects with {@link RpcError}, {@link NoReply} or the signal's reason
   */
  request(method, params = {}, { timeoutMs = REPLY_MS, signal } = {}) {
    if (this.#closed) return Promise.reject(new NoReply(this.#closed));
    if (signal?.aborted) return Promise.reject(signal.reason);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const finish = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        this.#waiting.delete(id);
      };
      /** @param {Error} error */
      const fail = (error) => {
        finish();
        reject(error);
      };
      const abort = () => fail(signal?.reason);
      const timer = setTimeout(() => fail(new NoReply(`${method} was not answered within ${timeoutMs / 1000} s`)), timeoutMs);
      signal?.addEventListener('abort', abort);
      this.#waiting.set(id, {
        resolve: (result) => {
          finish();
          resolve(result);
        },
        reject: fail,
      });
      try {
        this.#send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
      } catch (error) {
        fail(error instanceof Error ? error : new NoReply(String(error)));
      }
    });
  }

  /**
   * Tells, without waiting for anything. What the carrier can't take now is lost, as a notification may be.
   * @param {string} method
   * @param {object} params
   */
  notify(method, params) {
    if (this.#closed) return;
    try {
      this.#send(JSON.stringify({ jsonrpc: '2.0', method, params }));
    } catch {
      // The carrier is going away, and its owner hears of that from the carrier itself.
    }
  }

  /**
   * Calls `handler` for every notification `method`.
   * @param {string} method
   * @param {(params: any) => void} handler
   */
  on(method, handler) {
    this.#handlers.set(method, handler);
  }

  /**
   * Takes one message from the carrier.
   * @param {string} text
   */
  receive(text) {
    /** @type {any} */
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message === null || typeof message !== 'object' || message.jsonrpc !== '2.0') return;
    if (typeof message.method === 'string') {
      if (message.id === undefined) this.#handlers.get(message.method)?.(message.params ?? {});
      else this.#refuse(message.id, message.method);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    if (!waiting) return;
    if (message.error !== undefined) waiting.reject(new RpcError(readError(message.error)));
    else waiting.resolve(message.result);
  }

  /**
   * The replies to whatever waits are lost: it fails with `reason`.
   * @param {string} reason
   */
  drop(reason) {
    for (const waiting of [...this.#waiting.values()]) waiting.reject(new NoReply(reason));
  }

  /**
   * Ends it: whatever waits fails with `reason`, and so does whatever comes.
   * @param {string} reason
   */
  close(reason) {
    this.#closed ||= reason;
    this.drop(reason);
  }

  /**
   * @param {unknown} id
   * @param {string} method
   */
  #refuse(id, method) {
    const error = { code: ErrorCode.METHOD_NOT_FOUND, message: `a viewer page has no method ${method}` };
    try {
      this.#send(JSON.stringify({ jsonrpc: '2.0', id, error }));
    } catch {
      // As in notify.
    }
  }
}

/** @param {any} error */
function readError(error) {
  return {
    code: typeof error?.code === 'number' ? error.code : 0,
    message: typeof error?.message === 'string' ? error.message : 'The device refused without saying why.',
    data: error?.data,
  };
}
