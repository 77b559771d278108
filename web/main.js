// @ts-check
/**
 * Wires the page: address, viewer, player, view, overlay, buttons and words.
 */

import { ConfigError, readConfig } from './config.js';
import { Overlay } from './overlay.js';
import { Player } from './player.js';
import { hasH264 } from './session.js';
import { View } from './view.js';
import { Viewer } from './viewer.js';
import { describe } from './words.js';

/** Between two attempts to learn which device this is. */
const AGAIN_MS = 1000;
/** Buttons go away from the picture after this. */
const CONTROLS_MS = 3500;

/**
 * What tests and curious people may ask at `window.peercam`.
 * @typedef {object} PeercamForTests
 * @property {() => string} state the phase (words.js)
 * @property {() => string} session the device's id for the running session, or nothing
 * @property {() => boolean} broker whether signaling is connected
 * @property {() => import('./stats.js').Stats | undefined} stats
 * @property {() => import('./latency.js').Latency | undefined} latency of the newest frames; `last` is the newest one
 * @property {(method: string, params?: object) => Promise<any>} rpc a request over the data channel
 */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {{ new (): T }} kind
 * @returns {T}
 */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} “${id}”`);
  return found;
}

const video = element('video', HTMLVideoElement);
const still = element('still', HTMLCanvasElement);
const panel = element('panel', HTMLElement);
const title = element('title', HTMLElement);
const detail = element('detail', HTMLElement);
const statsPanel = element('stats', HTMLElement);
const statsButton = element('stats-button', HTMLButtonElement);
const wholeButton = element('whole-button', HTMLButtonElement);
const fullButton = element('full-button', HTMLButtonElement);

/** @param {import('./words.js').Words | undefined} words */
function tell(words) {
  document.body.classList.toggle('silent', !words);
  if (!words) return;
  panel.classList.toggle('busy', words.busy);
  // A live region speaks at every change of its text, so it is changed only when it is another.
  if (title.textContent !== words.title) title.textContent = words.title;
  if (detail.textContent !== words.detail) detail.textContent = words.detail;
}

/** @param {string} error */
function fail(error) {
  tell({ title: 'This can’t work yet', detail: error, busy: false });
}

async function fetchPeercamJson() {
  const missing = 'The address names no device, and there is no peercam.json beside the page: add #device=ID&broker=ws://HOST:PORT to it.';
  let response;
  while (!(response = await fetch('peercam.json', { cache: 'no-store' }).catch(() => undefined))) {
    tell({ title: 'The server of this page does not answer', detail: 'Trying again by itself.', busy: true });
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
  if (!response.ok) throw new ConfigError(missing);
  return response.json().catch(() => {
    throw new ConfigError('The file peercam.json beside the page is no JSON.');
  });
}

/** @param {import('./config.js').Config} config */
function run(config) {
  const overlay = new Overlay(element('stats-list', HTMLElement));
  const player = new Player(video, still, {
    frame: (metadata) => viewer.frame(metadata),
    alive: () => viewer.pictureAlive(),
    hushed: () => viewer.pictureHushed(),
    stalled: (silentMs) => viewer.pictureStalled(silentMs),
    blocked: (blocked) => viewer.playBlocked(blocked),
  });
  const viewer = new Viewer(config, player, () => {
    const { situation } = viewer;
    const words = describe(situation);
    tell(words);
    document.title = `${situation.name ?? situation.device}${words ? `: ${words.title}` : ''}`;
    document.body.dataset.phase = situation.phase;
    view.stayAwake(situation.phase === 'playing');
    if (!statsPanel.hidden) showStats();
  });
  const showStats = () =>
    overlay.show({
      stats: viewer.statsReader.stats,
      latency: viewer.latency.read(),
      device: viewer.session?.deviceStats,
      broker: viewer.signaling.connected,
      direct: config.broker === undefined,
      status: viewer.situation.status,
    });
  const view = new View(element('stage', HTMLElement), [video, still], video, {
    tap: () => {
      if (viewer.situation.blocked) player.play();
      showControls();
    },
    zoomed: (zoomed) => (wholeButton.hidden = !zoomed),
  });
  /** @param {boolean} open */
  const openStats = (open) => {
    statsPanel.hidden = !open;
    statsButton.setAttribute('aria-pressed', String(open));
    if (open) showStats();
  };
  const toggleStats = () => openStats(Boolean(statsPanel.hidden));
  statsButton.addEventListener('click', toggleStats);
  wholeButton.addEventListener('click', () => view.reset());
  fullButton.addEventListener('click', () => view.toggleFullScreen());
  document.addEventListener('fullscreenchange', () => fullButton.setAttribute('aria-pressed', String(!!document.fullscreenElement)));
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    showControls();
    if (event.key === 'f') view.toggleFullScreen();
    else if (event.key === 's') toggleStats();
    else if (view.key(event.key)) event.preventDefault();
  });
  document.addEventListener('pointermove', showControls);
  showControls();
  openStats(config.stats);

  window.peercam = Object.freeze({
    state: () => viewer.situation.phase,
    session: () => viewer.session?.id ?? '',
    broker: () => viewer.signaling.connected,
    stats: () => viewer.statsReader.stats,
    latency: () => viewer.latency.read(),
    rpc: (/** @type {string} */ method, /** @type {object} */ params = {}) =>
      viewer.session?.control?.request(method, params) ?? Promise.reject(new Error('There is no data channel now.')),
  });
  viewer.start();
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let controlsTimer;
function showControls() {
  document.body.classList.remove('quiet');
  clearTimeout(controlsTimer);
  controlsTimer = setTimeout(() => document.body.classList.add('quiet'), CONTROLS_MS);
}

async function main() {
  // A new address in the bar is a new viewer.
  window.addEventListener('hashchange', () => location.reload());
  if (typeof RTCPeerConnection === 'undefined') {
    return fail('This browser has no WebRTC, or it is switched off. Chrome, Edge, Firefox and Safari have it.');
  }
  if (!hasH264()) {
    const others = 'Chrome, Edge and Safari have it; Firefox fetches it some minutes after its first start.';
    return fail(`This browser has no H.264, which the camera sends. ${others}`);
  }
  try {
    run(await readConfig(location.hash, fetchPeercamJson, location.protocol, location.search));
  } catch (error) {
    fail(error instanceof Error ? error.message : String(error));
  }
}

main();
