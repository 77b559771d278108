// @ts-check
/**
 * How the picture is looked at: full screen, pinch and wheel zoom, dragging, double tap, keys, and a screen that stays on.
 */

import { WHOLE, keepInside, zoomAt } from './zoom.js';

const DOUBLE_TAP_MS = 300;
const DOUBLE_TAP_SCALE = 2.5;
/** A finger that moved less has tapped. */
const TAP_PX = 12;
const KEY_PAN_PX = 60;
const KEY_ZOOM = 1.25;

export class View {
  #place = { ...WHOLE };
  /** Fingers and buttons that are down, by pointer id. @type {Map<number, { x: number, y: number }>} */ #down = new Map();
  #moved = 0;
  #lastTap = { at: -Infinity, x: 0, y: 0 };
  /** @type {WakeLockSentinel | undefined} */ #awake;

  /**
   * @param {HTMLElement} stage takes the gestures
   * @param {HTMLElement[]} layers what is moved and scaled
   * @param {HTMLVideoElement} video for iPhones, which have full screen for videos only
   * @param {{ tap: () => void, zoomed: (zoomed: boolean) => void }} events
   */
  constructor(stage, layers, video, events) {
    this.stage = stage;
    this.layers = layers;
    this.video = video;
    this.events = events;
    stage.addEventListener('pointerdown', (event) => this.#pointerDown(event));
    stage.addEventListener('pointermove', (event) => this.#pointerMove(event));
    for (const type of /** @type {const} */ (['pointerup', 'pointercancel'])) {
      stage.addEventListener(type, (event) => this.#pointerUp(event));
    }
    stage.addEventListener(
      'wheel',
      (event) => {
        event.preventDefault();
        const { x, y } = this.#fromMiddle(event);
        this.#set(zoomAt(this.#place, Math.exp(-event.deltaY / 400), x, y));
      },
      { passive: false },
    );
    new ResizeObserver(() => this.#set(this.#place)).observe(stage);
  }

  get zoomed() {
    return this.#place.scale > 1.01;
  }

  /** The whole picture again. */
  reset() {
    this.#set({ ...WHOLE });
  }

  /** Full screen on and off. */
  async toggleFullScreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (document.documentElement.requestFullscreen) await document.documentElement.requestFullscreen().catch(() => {});
    else this.video.webkitEnterFullscreen?.();
  }

  /**
   * Keeps the phone's screen on while there is something to see. Only secure pages may.
   * @param {boolean} wanted
   */
  async stayAwake(wanted) {
    if (!wanted) {
      await this.#awake?.release();
      this.#awake = undefined;
    } else if ((!this.#awake || this.#awake.released) && !document.hidden) {
      // Refused with an empty battery; then the screen goes dark as always.
      this.#awake = await navigator.wakeLock?.request('screen').catch(() => undefined);
    }
  }

  /**
   * @param {string} key as of KeyboardEvent
   * @returns {boolean} whether it was one of ours
   */
  key(key) {
    const { scale, x, y } = this.#place;
    switch (key) {
      case '+':
      case '=':
        this.#set(zoomAt(this.#place, KEY_ZOOM, 0, 0));
        return true;
      case '-':
        this.#set(zoomAt(this.#place, 1 / KEY_ZOOM, 0, 0));
        return true;
      case '0':
        this.reset();
        return true;
      case 'ArrowLeft':
      case 'ArrowRight':
        this.#set({ scale, x: x + (key === 'ArrowLeft' ? KEY_PAN_PX : -KEY_PAN_PX), y });
        return true;
      case 'ArrowUp':
      case 'ArrowDown':
        this.#set({ scale, x, y: y + (key === 'ArrowUp' ? KEY_PAN_PX : -KEY_PAN_PX) });
        return true;
      default:
        return false;
    }
  }

  /** @param {PointerEvent} event */
  #pointerDown(event) {
    if (event.button !== 0) return;
    // Fails for a pointer that is already gone; the gesture is over then, too.
    try {
      this.stage.setPointerCapture(event.pointerId);
    } catch {
      return;
    }
    if (this.#down.size === 0) this.#moved = 0;
    this.#down.set(event.pointerId, this.#fromMiddle(event));
  }

  /** @param {PointerEvent} event */
  #pointerMove(event) {
    const before = this.#down.get(event.pointerId);
    if (!before) return;
    const now = this.#fromMiddle(event);
    this.#down.set(event.pointerId, now);
    const dx = now.x - before.x;
    const dy = now.y - before.y;
    this.#moved += Math.hypot(dx, dy);
    if (this.#down.size === 1) {
      this.#set({ scale: this.#place.scale, x: this.#place.x + dx, y: this.#place.y + dy });
      return;
    }
    const other = [...this.#down].find(([id]) => id !== event.pointerId)?.[1];
    if (!other) return;
    const factor = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
    const pinched = zoomAt(this.#place, factor, (now.x + other.x) / 2, (now.y + other.y) / 2);
    // The middle between the fingers moves by half of what one of them does.
    this.#set({ scale: pinched.scale, x: pinched.x + dx / 2, y: pinched.y + dy / 2 });
  }

  /** @param {PointerEvent} event */
  #pointerUp(event) {
    if (!this.#down.delete(event.pointerId) || this.#down.size > 0 || event.type === 'pointercancel' || this.#moved > TAP_PX) return;
    const { x, y } = this.#fromMiddle(event);
    const last = this.#lastTap;
    if (event.timeStamp - last.at < DOUBLE_TAP_MS && Math.hypot(x - last.x, y - last.y) < 40) {
      this.#lastTap = { at: -Infinity, x, y };
      this.#set(this.zoomed ? { ...WHOLE } : zoomAt(this.#place, DOUBLE_TAP_SCALE, x, y));
    } else {
      this.#lastTap = { at: event.timeStamp, x, y };
      this.events.tap();
    }
  }

  /** @param {MouseEvent} event */
  #fromMiddle(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
  }

  /** @param {import('./zoom.js').Placement} wanted */
  #set(wanted) {
    const before = this.zoomed;
    this.#place = keepInside(wanted, this.stage.clientWidth, this.stage.clientHeight);
    const { scale, x, y } = this.#place;
    for (const layer of this.layers) layer.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    if (before !== this.zoomed) this.events.zoomed(this.zoomed);
  }
}
