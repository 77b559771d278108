// @ts-check
/**
 * One WebRTC session with a device: hello, offer, answer, candidates both ways, the data channel `control`, ICE restarts.
 *
 * A session is opened once and ends once; a new one is a new object. It survives the broker: after the answer it needs signaling only for
 * late candidates and ICE restarts.
 */

import { describeObstacle } from './obstacle.js';
import { ErrorCode, VERSION } from './protocol.js';
import { NoReply, Rpc, RpcError } from './rpc.js';

/** An offer is worthless after this, as the broker's message expiry also says. */
const OFFER_LIFE_MS = 15_000;
/** hello and offer are answered by a running agent in milliseconds; this leaves room for a slow phone network. */
const HELLO_MS = 3000;
const OFFER_MS = 6000;
/** From the answer to a working path, TURN over TCP and TLS included. */
const CONNECT_MS = 10_000;
/** Candidates come in bursts; one message for those of one moment (docs/protocol.md). */
const TRICKLE_MS = 20;
/** A path that is silent for a moment is left alone; then ICE looks for another. */
const RESTART_AFTER_MS = 700;
const RESTART_MS = 5000;
const LOOK_MS = 100;

/**
 * How a session ended.
 * @typedef {object} End
 * @property {'lost' | 'closed' | 'dropped'} how `lost`: nothing comes any more; `closed`: the device said so; `dropped`: this page's wish
 * @property {string} [reason] the device's sentence
 */

/** No path between the two sides was found. */
export class NoPath extends Error {
  /**
   * @param {string} message
   * @param {string} [detail] what was tried, and what most likely stood in the way
   */
  constructor(message, detail = '') {
    super(message);
    this.detail = detail;
  }
}

/**
 * @typedef {object} SessionOptions
 * @property {Rpc} rpc signaling
 * @property {() => boolean} reachable whether signaling is there now
 * @property {string} [stream]
 * @property {'high' | 'low'} quality
 * @property {'realtime' | 'smooth'} playout
 * @property {boolean} relayOnly
 * @property {AbortSignal} signal ends the opening and the session
 * @property {(stream: MediaStream) => void} onStream
 * @property {(hello: import('./protocol.js').HelloReply) => void} onHello
 */

export class Session {
  /** JSON-RPC over the data channel. @type {Rpc | undefined} */
  control;
  /** The device's newest session.stats. @type {import('./protocol.js').SessionStats | undefined} */
  deviceStats;
  /** The device's id for this session, from the answer on. */
  id = '';
  /** @type {RTCPeerConnection | undefined} */ pc;
  /** @type {RTCRtpReceiver | undefined} */ receiver;
  /** Resolves once, when the session is over. @type {Promise<End>} */ ended;

  /** @type {(end: End) => void} */ #end = () => {};
  /** @type {SessionOptions} */ #options;
  /** @type {{ nonce: string, clockMs: number, at: number }} */ #stamp = { nonce: '', clockMs: 0, at: 0 };
  /** What there is to connect by, for the case that nothing does. @type {import('./obstacle.js').Attempt} */
  #attempt = { urls: [], relayOnly: false, errors: [], own: new Set(), device: new Set() };
  /** Ours, until the answer tells the session's id. @type {string[]} */ #outgoing = [];
  /** The device's, until the answer is set. @type {import('./protocol.js').Candidates[]} */ #incoming = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #trickle;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #restartTimer;
  /** Ends the wait for signaling. */
  #goOn = () => {};
  #answered = false;
  #restarting = false;
  #over = false;

  /** @param {SessionOptions} options */
  constructor(options) {
    this.#options = options;
    this.ended = new Promise((resolve) => (this.#end = resolve));
    options.signal.addEventListener('abort', () => this.close('dropped'));
  }

  /**
   * From hello to a working data channel.
   * @returns {Promise<void>} rejects with {@link RpcError}, {@link NoReply}, {@link NoPath} or the signal's reason
   */
  async open() {
    const { rpc, signal } = this.#options;
    try {
      const hello = /** @type {import('./protocol.js').HelloReply} */ (
        await rpc.request('session.hello', { version: VERSION }, { timeoutMs: HELLO_MS, signal })
      );
      this.#stamp = { nonce: hello.nonce, clockMs: hello.clock_ms, at: performance.now() };
      this.#options.onHello(hello);
      rpc.on('session.candidates', (params) => this.#remoteCandidates(params));
      rpc.on('session.close', (params) => this.#closedByDevice(params));
      const pc = this.#createPeer(hello);
      const opened = this.#openControl(pc);
      // The way may be known not to exist before the answer is there.
      await Promise.all([opened, this.#exchange(pc, false)]);
    } catch (error) {
      this.close('lost', 'The page gave up connecting.');
      throw error;
    }
  }

  /** Whether another path is being sought. */
  get restarting() {
    return this.#restarting;
  }

  /**
   * The network has changed, or the path is silent: looks for another path, or ends the session if that fails. While signaling is away it
   * waits for that.
   */
  async restartIce() {
    const pc = this.pc;
    if (!pc || this.#over || this.#restarting || !this.#answered) return;
    this.#restarting = true;
    try {
      const before = succeededPairs(await pc.getStats());
      await this.#askForRestart(pc);
      if (!(await this.#findsPath(pc, before)) && !this.#connected(pc)) this.#finish({ how: 'lost' });
    } catch (error) {
      // An agent that was started anew refuses: it knows nothing of this session, whatever ICE still believes.
      // Without an answer, a path that came back meanwhile is still a path.
      if (error instanceof RpcError || !this.#connected(pc)) this.#finish({ how: 'lost' });
    } finally {
      this.#restarting = false;
    }
  }

  /** Signaling is there again: what waited for it goes on. */
  signalingBack() {
    this.#goOn();
    if (this.pc?.iceConnectionState === 'disconnected') this.restartIce();
  }

  /**
   * Asks until the device has answered: what a dead connection was given is asked again by the next one.
   * @param {RTCPeerConnection} pc
   */
  async #askForRestart(pc) {
    for (;;) {
      if (!this.#options.reachable()) await new Promise((resolve) => (this.#goOn = () => resolve(undefined)));
      if (this.#over) throw new NoReply('The session is over.');
      try {
        return await this.#exchange(pc, true);
      } catch (error) {
        if (!(error instanceof NoReply) || this.#options.reachable()) throw error;
      }
    }
  }

  /**
   * Waits for a path that was not there before.
   * @param {RTCPeerConnection} pc
   * @param {Set<string>} before
   */
  async #findsPath(pc, before) {
    const until = performance.now() + RESTART_MS;
    while (!this.#over && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      for (const id of succeededPairs(await pc.getStats())) if (!before.has(id)) return true;
    }
    return false;
  }

  /**
   * Ends the session and tells the device.
   * @param {'lost' | 'dropped'} how
   * @param {string} [reason] a sentence for the device's log
   */
  close(how, reason = 'The viewer has left.') {
    if (this.#over) return;
    if (this.id) {
      const close = { session: this.id, reason };
      this.control?.notify('session.close', close);
      this.#options.rpc.notify('session.close', close);
    }
    this.#finish({ how });
  }

  /** @param {import('./protocol.js').HelloReply} hello */
  #createPeer(hello) {
    const iceTransportPolicy = this.#options.relayOnly ? 'relay' : hello.ice_transport_policy;
    this.#attempt.urls = hello.ice_servers.flatMap((server) => server.urls);
    this.#attempt.relayOnly = iceTransportPolicy === 'relay';
    const pc = new RTCPeerConnection({ iceServers: hello.ice_servers, iceTransportPolicy, bundlePolicy: 'max-bundle' });
    this.pc = pc;
    const transceiver = pc.addTransceiver('video', { direction: 'recvonly' });
    this.receiver = transceiver.receiver;
    // The device asks for the same by playout-delay, which not every browser understands.
    if (this.#options.playout === 'realtime' && 'jitterBufferTarget' in transceiver.receiver) transceiver.receiver.jitterBufferTarget = 0;
    preferH264(transceiver);
    askForCaptureTime(transceiver);
    pc.addEventListener('track', (event) => this.#options.onStream(event.streams[0] ?? new MediaStream([event.track])));
    pc.addEventListener('icecandidate', (event) => this.#localCandidate(event.candidate));
    pc.addEventListener('icecandidateerror', ({ url, errorCode }) => {
      if (!this.control) this.#attempt.errors.push({ url, code: errorCode });
    });
    pc.addEventListener('connectionstatechange', () => {
      if (pc.connectionState === 'failed' && !this.#restarting) this.#finish({ how: 'lost' });
    });
    pc.addEventListener('iceconnectionstatechange', () => {
      clearTimeout(this.#restartTimer);
      if (pc.iceConnectionState === 'disconnected') {
        this.#restartTimer = setTimeout(() => this.restartIce(), RESTART_AFTER_MS);
      }
    });
    return pc;
  }

  /**
   * Makes the data channel.
   * @param {RTCPeerConnection} pc
   * @returns {Promise<void>} when it is open; rejects when it won't be
   */
  #openControl(pc) {
    const channel = pc.createDataChannel('control');
    const control = new Rpc((text) => {
      if (channel.readyState !== 'open') throw new NoReply('The data channel is not open.');
      channel.send(text);
    });
    control.on('session.stats', (params) => (this.deviceStats = params));
    control.on('session.close', (params) => this.#closedByDevice(params));
    channel.addEventListener('message', (event) => {
      if (typeof event.data === 'string') control.receive(event.data);
    });
    const opened = new Promise((resolve, reject) => {
      const noPath = () => new NoPath('No way to the device was found', describeObstacle(this.#attempt));
      const timer = setTimeout(() => reject(noPath()), CONNECT_MS);
      channel.addEventListener('open', () => {
        clearTimeout(timer);
        this.control = control;
        resolve(undefined);
      });
      channel.addEventListener('close', () => this.#finish({ how: 'lost' }));
      this.ended.then((end) => {
        clearTimeout(timer);
        control.close('The session is over.');
        if (end.how === 'lost') reject(noPath());
        else reject(this.#options.signal.reason ?? new NoPath(end.reason ?? 'The device ended the session.'));
      });
    });
    // open() may fail before it comes to wait for this.
    opened.catch(() => {});
    return opened;
  }

  /**
   * Offer and answer.
   * @param {RTCPeerConnection} pc
   * @param {boolean} iceRestart
   */
  async #exchange(pc, iceRestart) {
    const { rpc, signal, stream, quality, playout } = this.#options;
    await pc.setLocalDescription(await pc.createOffer({ iceRestart }));
    const offer = { sdp: pc.localDescription?.sdp ?? '', stream, quality, playout, session: iceRestart ? this.id : undefined };
    const ask = () => {
      const expires_ms = Math.round(this.#stamp.clockMs + (performance.now() - this.#stamp.at) + OFFER_LIFE_MS);
      return rpc.request('session.offer', { ...offer, nonce: this.#stamp.nonce, expires_ms }, { timeoutMs: OFFER_MS, signal });
    };
    /** @type {import('./protocol.js').OfferReply} */
    const reply = await ask().catch((error) => {
      if (!(error instanceof RpcError) || error.code !== ErrorCode.EXPIRED || typeof error.data?.nonce !== 'string') throw error;
      // The page slept since hello, or the nonce grew old: the error brings a fresh one.
      this.#stamp = { nonce: error.data.nonce, clockMs: Number(error.data.clock_ms), at: performance.now() };
      return ask();
    });
    if (this.#over) throw signal.reason ?? new NoReply('The session is over.');
    this.id = reply.session;
    addTypes(this.#attempt.device, reply.sdp);
    await pc.setRemoteDescription({ type: 'answer', sdp: reply.sdp });
    this.#answered = true;
    this.#flushTrickle();
    for (const early of this.#incoming.splice(0)) this.#remoteCandidates(early);
  }

  /** @param {RTCIceCandidate | null} candidate */
  #localCandidate(candidate) {
    // The browser's empty candidate marks the end of one generation, as null marks that of all.
    if (candidate?.candidate) {
      this.#outgoing.push(candidate.candidate);
      addTypes(this.#attempt.own, candidate.candidate);
    }
    // Where only relays may be used and none is there, nothing is left that could work.
    if (candidate === null && this.#attempt.relayOnly && !this.#attempt.own.has('relay')) this.#finish({ how: 'lost' });
    if (!this.id) return;
    if (candidate?.candidate) this.#trickle ??= setTimeout(() => this.#flushTrickle(), TRICKLE_MS);
    else if (candidate === null) {
      this.#flushTrickle();
      this.#options.rpc.notify('session.candidates', { session: this.id, candidates: [] });
    }
  }

  #flushTrickle() {
    clearTimeout(this.#trickle);
    this.#trickle = undefined;
    const candidates = this.#outgoing.splice(0);
    if (candidates.length > 0) this.#options.rpc.notify('session.candidates', { session: this.id, candidates });
    // Gathering that ended before the answer could not be told then.
    if (candidates.length > 0 && this.pc?.iceGatheringState === 'complete') {
      this.#options.rpc.notify('session.candidates', { session: this.id, candidates: [] });
    }
  }

  /** @param {import('./protocol.js').Candidates} params */
  #remoteCandidates(params) {
    if (this.#over || !Array.isArray(params.candidates)) return;
    if (!this.#answered) this.#incoming.push(params);
    else if (params.session === this.id) {
      for (const candidate of params.candidates) {
        addTypes(this.#attempt.device, candidate);
        // One that this browser can't read (a kind it does not know) is one path less, not a failure.
        this.pc?.addIceCandidate({ candidate, sdpMLineIndex: 0 }).catch(() => {});
      }
    }
  }

  /** @param {import('./protocol.js').Close} params */
  #closedByDevice(params) {
    if (this.id && params.session === this.id) this.#finish({ how: 'closed', reason: String(params.reason ?? '') });
  }

  /** @param {RTCPeerConnection} pc */
  #connected(pc) {
    return pc.connectionState === 'connected' && pc.iceConnectionState !== 'disconnected';
  }

  /** @param {End} end */
  #finish(end) {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#trickle);
    clearTimeout(this.#restartTimer);
    this.#goOn();
    this.#end(end);
    // What was sent a moment ago (session.close) still leaves: close() drains nothing, so it comes one task later.
    const pc = this.pc;
    setTimeout(() => pc?.close(), 0);
  }
}

/**
 * The ways that are known to lead to the device. The state of ICE does not tell: it may have been "connected" over a dead one all the time.
 * @param {RTCStatsReport} report
 */
function succeededPairs(report) {
  const pairs = [...report.values()].filter((entry) => entry.type === 'candidate-pair' && entry.state === 'succeeded');
  return new Set(pairs.map((entry) => String(entry.id)));
}

/**
 * Adds the types of the candidates in SDP, or in a candidate's own line (RFC 8839, 5.1).
 * @param {Set<string>} types
 * @param {string} text
 */
function addTypes(types, text) {
  for (const [, type] of text.matchAll(/candidate:.* typ (\w+)/g)) types.add(String(type));
}

/** Whether this browser can show what a camera sends. */
export function hasH264() {
  const codecs = RTCRtpReceiver.getCapabilities?.('video')?.codecs;
  return !codecs || codecs.some((codec) => codec.mimeType.toLowerCase() === 'video/h264');
}

/**
 * H.264 first and nothing else that could be picked, with what repairs it.
 * @param {RTCRtpTransceiver} transceiver
 */
function preferH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities?.('video')?.codecs ?? [];
  const wanted = codecs.filter((codec) => /^video\/(h264|rtx)$/i.test(codec.mimeType));
  if (wanted.some((codec) => /h264/i.test(codec.mimeType))) transceiver.setCodecPreferences?.(wanted);
}

/**
 * Chromium knows abs-capture-time and offers it only when asked.
 * @param {RTCRtpTransceiver} transceiver
 */
function askForCaptureTime(transceiver) {
  const extensions = transceiver.getHeaderExtensionsToNegotiate?.();
  const stamp = extensions?.find((extension) => extension.uri.endsWith('/abs-capture-time'));
  if (!extensions || !stamp) return;
  stamp.direction = 'sendrecv';
  transceiver.setHeaderExtensionsToNegotiate?.(extensions);
}
