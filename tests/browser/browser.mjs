/**
 * Real headless Chromium on the viewer page, and what can be measured from outside the page's own modules.
 */

import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { eventually } from './run.mjs';
import { readStamp } from './stamp.mjs';

// The page's folder is the one that has development tools.
const { chromium } = createRequire(new URL('../../web/package.json', import.meta.url))('playwright-core');

const SCREENSHOTS = fileURLToPath(new URL('../../target/browser/', import.meta.url));
const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
];

/** The two sizes that everything is looked at in. */
export const DESKTOP = { viewport: { width: 1280, height: 720 } };
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

/** @param {import('./run.mjs').Cleanup} cleanup */
export async function startBrowser(cleanup) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  cleanup.add(() => browser.close());
  return browser;
}

/**
 * Opens the viewer page in a window of its own.
 * @param {any} browser
 * @param {string} url
 * @param {object} size
 * @returns {Promise<Viewer>}
 */
export async function openViewer(browser, url, size = DESKTOP) {
  const context = await browser.newContext(size);
  const page = await context.newPage();
  const viewer = new Viewer(page);
  // Keeps a hand on the page's connections, so that the browser's own counters can be read past the page's statistics.
  await context.addInitScript(`
    window.readStamp = ${readStamp};
    window.connections = [];
    window.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(...args) {
        super(...args);
        const made = performance.now();
        window.connections.push(this);
        this.addEventListener('connectionstatechange', () => {
          if (this.connectionState === 'connected') this.tookMs ??= performance.now() - made;
        });
      }
    };`);
  await page.goto(url);
  return viewer;
}

export class Viewer {
  /** What went wrong in the page, the network's refusals apart. */
  faults = [];

  constructor(page) {
    this.page = page;
    page.on('pageerror', (error) => this.faults.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error' && !/net::ERR_|Failed to load resource/.test(message.text())) this.faults.push(message.text());
    });
  }

  /** @param {number} withinMs */
  async plays(withinMs) {
    await eventually('the page shows a moving picture', withinMs, () =>
      this.page.evaluate(() => window.peercam?.state() === 'playing' && document.getElementById('video').videoWidth > 0),
    ).catch(async (error) => {
      throw new Error(`${error.message}; at last it said: ${await this.words()}`, { cause: error });
    });
  }

  /** What the page says, as one line. */
  words() {
    return this.page.evaluate(() =>
      document.body.classList.contains('silent') ? '' : ['title', 'detail'].map((id) => document.getElementById(id).textContent).join(' / '),
    );
  }

  /** @param {string} label of a row in the overlay */
  stat(label) {
    return this.page.evaluate((name) => document.querySelector(`[data-stat="${name}"]`)?.textContent, label);
  }

  session() {
    return this.page.evaluate(() => window.peercam.session());
  }

  /** @param {string} name of the file, kept for people */
  async screenshot(name) {
    await mkdir(SCREENSHOTS, { recursive: true });
    await this.page.screenshot({ path: join(SCREENSHOTS, `${name}.png`) });
  }

  /** How long the newest connection took, in ms, from its making on, which comes after hello. */
  connecting() {
    return this.page.evaluate(() => window.connections.at(-1).tookMs);
  }

  /** What the newest connection tells the device of its own addresses, a line each. */
  candidates() {
    return this.page.evaluate(() => {
      const lines = window.connections.at(-1).localDescription?.sdp.split('\r\n') ?? [];
      // There is one set for each section, and all sections share one.
      return [...new Set(lines.filter((line) => line.startsWith('a=candidate:')))];
    });
  }

  /** From now on, {@link longestGap} knows. */
  watchGaps() {
    return this.page.evaluate(() => {
      const video = document.getElementById('video');
      window.gap = { last: performance.now(), longestMs: 0 };
      const next = () =>
        video.requestVideoFrameCallback(() => {
          next();
          const now = performance.now();
          window.gap = { last: now, longestMs: Math.max(window.gap.longestMs, now - window.gap.last) };
        });
      next();
    });
  }

  /** The longest time without a new picture since the last call or {@link watchGaps}, in ms; one that lasts counts. */
  longestGap() {
    return this.page.evaluate(() => {
      const { last, longestMs } = window.gap;
      const now = performance.now();
      window.gap = { last: now, longestMs: 0 };
      return Math.max(longestMs, now - last);
    });
  }

  /** The browser's own counters of the newest connection's video. */
  counters() {
    return this.page.evaluate(async () => {
      const report = await window.connections.at(-1).getStats();
      const video = [...report.values()].find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'video');
      const { framesDecoded, framesReceived, freezeCount, packetsLost, timestamp } = video;
      return { framesDecoded, framesReceived, freezeCount, packetsLost, timestamp };
    });
  }

  /**
   * Counts decoded frames and freezes over a time, beside the frames that the source made: by the numbers on the test card,
   * since a busy machine draws fewer; else by the rate of 30 frames/s that a file is played at.
   * @param {number} ms
   */
  async countFrames(ms) {
    const number = async () => (await this.readStamps(1)).frames[0]?.stamp?.frame;
    const first = await number();
    const from = await this.counters();
    await new Promise((resolve) => setTimeout(resolve, ms));
    const last = await number();
    const to = await this.counters();
    const secs = (to.timestamp - from.timestamp) / 1000;
    const numbered = first !== undefined && last !== undefined;
    return {
      secs,
      made: numbered ? (last - first + 0x10000) % 0x10000 : Math.floor(30 * secs),
      decoded: to.framesDecoded - from.framesDecoded,
      received: to.framesReceived - from.framesReceived,
      freezes: to.freezeCount - from.freezeCount,
      lost: to.packetsLost - from.packetsLost,
    };
  }

  /**
   * Reads the burnt-in stamps off the rendered frames, together with what the page says about each.
   * Truth is the wall clock: browser and device run on the same machine, so no offset has to be known.
   * @param {number} count of frames
   */
  readStamps(count) {
    return this.page.evaluate(async (wanted) => {
      const video = document.getElementById('video');
      const canvas = document.createElement('canvas');
      const context = canvas.getContext('2d', { willReadFrequently: true });
      // The page's monotonic clock and the wall clock were equal when the page was opened, and may have parted since.
      const skew = () => Date.now() - (performance.timeOrigin + performance.now());
      const skews = Array.from({ length: 50 }, skew).sort((a, b) => a - b);
      const toWall = performance.timeOrigin + skews[25];
      const frames = [];
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, (wanted / 10) * 1000);
        const next = (_now, metadata) => {
          const { videoWidth: width, videoHeight: height } = video;
          const top = Math.floor((13 * height) / 15);
          canvas.width = width;
          canvas.height = height - top;
          context.drawImage(video, 0, top, width, height - top, 0, 0, width, height - top);
          const stamp = window.readStamp(context.getImageData(0, 0, width, height - top).data, width, height, top);
          const said = window.peercam.latency()?.last;
          const shownMs = toWall + Math.max(metadata.presentationTime, metadata.expectedDisplayTime);
          frames.push({
            stamp,
            trueMs: stamp && shownMs - stamp.unixMs,
            saidMs: said?.rtpTimestamp === metadata.rtpTimestamp ? said.latencyMs : undefined,
            errorMs: said?.errorMs,
          });
          if (frames.length < wanted) video.requestVideoFrameCallback(next);
          else {
            clearTimeout(timer);
            resolve();
          }
        };
        video.requestVideoFrameCallback(next);
      });
      return { frames, overlay: document.querySelector('[data-stat="Latency"]')?.textContent };
    }, count);
  }

  /**
   * @param {string} method
   * @param {object} [params]
   */
  rpc(method, params = {}) {
    return this.page.evaluate(([name, value]) => window.peercam.rpc(name, value), [method, params]);
  }
}

/**
 * @param {number[]} values
 * @param {number} part from 0 to 1
 */
export function quantile(values, part) {
  return [...values].sort((a, b) => a - b)[Math.floor(part * (values.length - 1))];
}

/** @param {number[]} values */
export function median(values) {
  return quantile(values, 0.5);
}
