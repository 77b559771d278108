// @ts-check
/**
 * The state machine: broker (or the device itself), hello, session, picture, and back to the start when something goes away.
 *
 * One loop runs one attempt after the other. Everything that happens (a status, the network, a waking phone, a silent picture) either
 * ends the running attempt or cuts the pause before the next one short; nothing else starts a session.
 */

import { Backoff } from './backoff.js';
import { openCarrier } from './carrier.js';
import { LatencyMeter, localNow } from './latency.js';
import { newPeerId } from './protocol.js';
import { NoReply } from './rpc.js';
import { NoPath, Session } from './session.js';
import { StatsReader, countFrames } from './stats.js';

/** An answer over a living data channel takes one round trip. */
const PING_MS = 1500;
/** The same, when there is no picture either: a wrong guess costs some packets. */
const HUSH_PING_MS = 500;
/** The same, when there is reason to believe that the device was started anew. */
const DOUBT_MS = 700;
/** A device that answers, claims a living camera and yet sends no picture for so long gets a new session. */
const GIVE_UP_MS = 8000;
/** So long in the background, a socket may have died without a word. */
const LONG_HIDDEN_MS = 15_000;
/** Frames that come and can't be decoded show themselves within this. */
const STUCK_MS = 300;
/** The first clock exchanges come quickly, so that the latency is there with the first pictures. */
const CLOCK_FIRST_MS = 100;
const CLOCK_FIRST_COUNT = 8;
const CLOCK_MS = 2000;
const STATS_MS = 1000;

/** The attempt is void: begin again at once. */
class Again extends Error {}

export class Viewer {
  /** @type {import('./words.js').Situation} */ situation;
  statsReader = new StatsReader();
  latency = new LatencyMeter();
  /** @type {Session | undefined} */ session;

  #attempt = new AbortController();
  #backoff = new Backoff(250, 4000);
  /** Ends the pause between attempts. */
  #wakeUp = () => {};
  /** Ends the wait for the broker. */
  #brokerBack = () => {};
  /** The boot of the agent that the attempt or session talks to, as far as known. @type {string | undefined} */ #boot;
  #probing = false;
  /** The page is put away; nothing is begun. */
  #away = false;
  #hiddenAt = 0;

  /**
   * @param {import('./config.js').Config} config
   * @param {{ attach: (stream: MediaStream) => void, detach: () => void, decoded: (frames: number) => void }} player
   * @param {() => void} changed the situation is another
   */
  constructor(config, player, changed) {
    this.config = config;
    this.player = player;
    this.changed = changed;
    this.situation = {
      phase: 'broker',
      device: config.device,
      broker: config.broker,
      stream: config.stream,
      brokerTries: 0,
      brokerWhy: '',
      unanswered: 0,
      network: navigator.onLine,
      seen: false,
      blocked: false,
    };
    this.signaling = openCarrier(config, newPeerId(), {
      connected: () => this.#brokerFound(),
      lost: (brokerTries, brokerWhy) => this.#change({ brokerTries, brokerWhy }),
      status: (status, retained) => this.#status(status, retained),
    });
  }

  /** Runs for as long as the page lives. */
  start() {
    this.#listenToTheWorld();
    setInterval(() => this.#readStats(), STATS_MS);
    this.signaling.connect();
    this.#run();
  }

  /** The player shows a picture again. */
  pictureAlive() {
    this.#backoff.reset();
    if (this.session) this.#change({ phase: 'playing', seen: true });
  }

  /** @param {VideoFrameCallbackMetadata} metadata */
  frame(metadata) {
    this.latency.frame(/** @type {any} */ (metadata), this.session?.receiver?.getSynchronizationSources()[0]);
  }

  /**
   * No picture for a moment. The path may be dead, since the phone is in another network now: a browser tells that only seconds later. If
   * frames come that can't be decoded, a packet is lost for good: a key frame helps, and the browser would ask for one only seconds later.
   */
  async pictureHushed() {
    const { session } = this;
    if (!session?.control || !session.pc) return;
    this.#checkPath(session, HUSH_PING_MS);
    const before = countFrames(/** @type {any} */ (await session.pc.getStats()));
    await new Promise((resolve) => setTimeout(resolve, STUCK_MS));
    const after = countFrames(/** @type {any} */ (await session.pc.getStats()));
    if (after.received > before.received && after.decoded === before.decoded) await this.#askForKeyFrame(session);
  }

  /**
   * The player shows nothing new for so long: finds out who is silent and acts.
   * @param {number} silentMs
   */
  async pictureStalled(silentMs) {
    const session = this.session;
    // Before the data channel is there, the opening has time limits of its own.
    if (!session?.control) return;
    this.#change({ phase: 'waiting' });
    if (this.#probing) return;
    this.#probing = true;
    try {
      if (session.restarting) return;
      if (!(await this.#checkPath(session, PING_MS))) return;
      const camera = this.situation.status?.streams.find((entry) => entry.name === this.situation.stream);
      if (camera && camera.state !== 'live') return;
      if (silentMs > GIVE_UP_MS) session.close('lost', 'No picture came.');
      else await this.#askForKeyFrame(session);
    } finally {
      // Not at every tick of the player's watch.
      setTimeout(() => (this.#probing = false), 1000);
    }
  }

  /** @param {boolean} blocked */
  playBlocked(blocked) {
    this.#change({ blocked });
  }

  async #run() {
    for (;;) {
      const pauseMs = await this.#runAttempt();
      this.player.detach();
      if (pauseMs > 0) await this.#pause(pauseMs);
    }
  }

  /** @returns {Promise<number>} how long to pause before the next */
  async #runAttempt() {
    this.#attempt = new AbortController();
    const { signal } = this.#attempt;
    if (this.#away || !this.signaling.connected) {
      this.#change({ phase: 'broker' });
      await new Promise((resolve) => (this.#brokerBack = () => resolve(undefined)));
    }
    const { status } = this.situation;
    this.#boot = status?.online ? status.boot : undefined;
    // A refusal stays readable while it is tried again.
    this.#change({ phase: this.situation.phase === 'refused' ? 'refused' : 'asking', seen: false });
    const session = new Session({
      rpc: this.signaling.rpc,
      reachable: () => this.signaling.connected,
      stream: this.config.stream,
      quality: this.config.quality,
      playout: this.config.playout,
      relayOnly: this.config.relayOnly,
      signal,
      onHello: (hello) => {
        const stream = this.config.stream ?? hello.streams[0]?.name;
        this.#change({ name: hello.device.name, stream, unanswered: 0 });
        if (this.situation.phase === 'asking') this.#change({ phase: 'connecting' });
      },
      onStream: (stream) => {
        if (this.situation.phase !== 'refused') this.#change({ phase: 'connecting' });
        this.player.attach(stream);
      },
    });
    this.session = session;
    this.statsReader = new StatsReader();
    this.latency = new LatencyMeter();
    try {
      await session.open();
      if (this.situation.phase !== 'playing') this.#change({ phase: 'waiting' });
      this.#readStats();
      this.#keepClock(session);
      return this.#afterEnd(await session.ended);
    } catch (error) {
      return this.#afterFailure(error);
    } finally {
      this.session = undefined;
    }
  }

  /**
   * @param {import('./session.js').End} end
   * @returns {number}
   */
  #afterEnd(end) {
    if (end.how === 'closed') {
      this.#change({ phase: 'refused', error: end.reason || 'The device ended the session.', obstacle: '' });
      return this.#backoff.next();
    }
    // A session that showed a picture is replaced at once; one that never did would be replaced for ever.
    return this.situation.seen ? 0 : this.#backoff.next();
  }

  /**
   * @param {unknown} error
   * @returns {number}
   */
  #afterFailure(error) {
    if (error instanceof Again) return 0;
    if (error instanceof NoReply) {
      if (this.signaling.connected) this.#change({ phase: 'asking', unanswered: this.situation.unanswered + 1 });
      // The wait for the reply was pause enough.
      return this.#backoff.firstMs;
    }
    const obstacle = error instanceof NoPath ? error.detail : '';
    this.#change({ phase: 'refused', error: error instanceof Error ? error.message : String(error), obstacle });
    return this.#backoff.next();
  }

  /** @param {number} ms */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wakeUp = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  /** The broker is there: what waited for it goes on. A running session has not noticed. */
  #brokerFound() {
    this.#change({ brokerTries: 0, brokerWhy: '' });
    if (!this.#away) this.#brokerBack();
    this.#wakeUp();
    this.session?.signalingBack();
  }

  /**
   * @param {import('./protocol.js').Status} status
   * @param {boolean} retained
   */
  #status(status, retained) {
    const offlineSince = status.online ? undefined : (this.situation.offlineSince ?? (retained ? undefined : new Date()));
    this.#change({ status, name: status.name || this.situation.name, offlineSince });
    if (!status.online) return;
    this.#wakeUp();
    const known = this.#boot;
    this.#boot = status.boot;
    if (known === status.boot || (known === undefined && retained)) return;
    // Another agent than the one that was asked. A status is only a hint, so a running session is asked first.
    const { session } = this;
    if (session?.control) this.#doubt(session);
    else this.#attempt.abort(new Again());
  }

  /** @param {Session} session */
  async #askForKeyFrame(session) {
    // Refused by a camera that can't make one; its next one comes by itself.
    await session.control?.request('camera.keyframe', {}, { timeoutMs: PING_MS }).catch(() => {});
  }

  /** @param {Session} session */
  async #doubt(session) {
    if (!(await this.#answers(session, DOUBT_MS))) session.close('lost', 'The device was started anew.');
  }

  /**
   * Whether the other end of the data channel is alive. Sets the clocks by the way.
   * @param {Session} session
   * @param {number} timeoutMs
   */
  async #answers(session, timeoutMs) {
    if (!session.control) return false;
    const sent = localNow();
    try {
      /** @type {import('./protocol.js').Clock} */
      const clock = await session.control.request('session.clock', {}, { timeoutMs });
      const received = localNow();
      if (session === this.session) {
        this.latency.clock.add({ sent, remoteReceived: clock.received_ms, remoteSent: clock.sent_ms, received });
      }
      return true;
    } catch {
      return false;
    }
  }

  /** @param {Session} session */
  async #keepClock(session) {
    for (let count = 0; session === this.session; count += 1) {
      await this.#answers(session, PING_MS);
      await new Promise((resolve) => setTimeout(resolve, count < CLOCK_FIRST_COUNT ? CLOCK_FIRST_MS : CLOCK_MS));
    }
  }

  async #readStats() {
    const { session, statsReader } = this;
    if (!session?.pc || session.pc.connectionState === 'closed') return;
    const stats = statsReader.read(/** @type {any} */ (await session.pc.getStats()));
    if (stats && session === this.session) this.player.decoded(stats.framesDecoded);
    this.changed();
  }

  #listenToTheWorld() {
    window.addEventListener('online', () => {
      this.#change({ network: true });
      this.signaling.wake(true);
      this.#wakeUp();
      this.#checkSession();
    });
    window.addEventListener('offline', () => this.#change({ network: false }));
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) this.#hiddenAt = performance.now();
      else this.#comeBack(performance.now() - this.#hiddenAt > LONG_HIDDEN_MS);
    });
    window.addEventListener('pageshow', (event) => {
      if (event.persisted) this.#comeBack(true);
    });
    window.addEventListener('pagehide', () => {
      this.#away = true;
      this.session?.close('dropped', 'The page was closed.');
    });
  }

  /** @param {boolean} distrust whatever was open may be dead */
  #comeBack(distrust) {
    this.#away = false;
    this.signaling.wake(distrust);
    if (this.signaling.connected) this.#brokerBack();
    this.#wakeUp();
    this.#checkSession();
  }

  /** The phone slept or changed its network. */
  #checkSession() {
    const { session } = this;
    if (session?.control) this.#checkPath(session, PING_MS);
  }

  /**
   * Finds out whether the path lives, and has another one sought if it does not. What killed it may have killed signaling too.
   * @param {Session} session
   * @param {number} timeoutMs
   * @returns {Promise<boolean>}
   */
  async #checkPath(session, timeoutMs) {
    const [path, signaling] = await Promise.all([this.#answers(session, timeoutMs), this.signaling.proves(timeoutMs)]);
    if (path || session !== this.session) return path;
    if (!signaling) this.signaling.wake(true);
    session.restartIce();
    return false;
  }

  /** @param {Partial<import('./words.js').Situation>} news */
  #change(news) {
    Object.assign(this.situation, news);
    this.changed();
  }
}
