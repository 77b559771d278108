// @ts-check
/**
 * The statistics that lie over the picture. What is not known is "n/a"; nothing is made up.
 */

const UNKNOWN = 'n/a';

/**
 * @typedef {object} Readings
 * @property {import('./stats.js').Stats | undefined} stats
 * @property {import('./latency.js').Latency | undefined} latency
 * @property {import('./protocol.js').SessionStats | undefined} device
 * @property {boolean} broker whether signaling is connected
 * @property {boolean} [direct] signaling goes to the device itself
 * @property {import('./protocol.js').Status | undefined} [status] what the device last said of itself
 */

/**
 * What the overlay shows, row by row.
 * @param {Readings} readings
 * @returns {[label: string, value: string][]}
 */
export function rows({ stats, latency, device, broker, direct, status }) {
  return [
    ['Latency', latency ? `${latency.medianMs.toFixed(0)} ms ± ${Math.max(1, Math.ceil(latency.errorMs))}` : UNKNOWN],
    ['Frames', stats?.fps === undefined ? UNKNOWN : `${stats.fps.toFixed(0)} /s`],
    ['Picture', stats?.width ? picture(stats, device?.limited) : UNKNOWN],
    ['Bitrate', bitrate(stats?.kbps)],
    ['Path carries', bitrate(device?.estimate_bps === undefined ? undefined : device.estimate_bps / 1000)],
    ['Encoder target', bitrate(device ? device.target_bps / 1000 : undefined)],
    ['Loss', stats ? `${stats.packetsLost} of ${stats.packetsReceived + stats.packetsLost} packets, ${stats.nacks} NACKs` : UNKNOWN],
    ['Dropped', stats ? `${device?.dropped ?? 0} sending, ${stats.framesDropped} here, ${stats.freezes} freezes` : UNKNOWN],
    ['Round trip', stats?.rttMs === undefined ? UNKNOWN : `${stats.rttMs.toFixed(stats.rttMs < 10 ? 1 : 0)} ms`],
    ['Jitter buffer', stats?.jitterBufferMs === undefined ? UNKNOWN : `${stats.jitterBufferMs.toFixed(1)} ms`],
    ['Path', stats?.path ?? UNKNOWN],
    ['Broker', direct ? 'none' : broker ? 'connected' : 'away (the picture does not need it)'],
    ['Configuration', status ? configuration(status) : UNKNOWN],
  ];
}

/**
 * @param {import('./stats.js').Stats} stats
 * @param {boolean} [limited]
 */
function picture({ width, height, codec }, limited) {
  const what = [`${width}×${height}`, codec].filter(Boolean).join(' ');
  return limited ? `${what}: the small one, as this network carries no more` : what;
}

/** @param {number | undefined} kbps */
function bitrate(kbps) {
  if (kbps === undefined) return UNKNOWN;
  return kbps >= 1000 ? `${(kbps / 1000).toFixed(2)} Mbit/s` : `${kbps.toFixed(0)} kbit/s`;
}

/** @param {import('./protocol.js').Status} status */
function configuration(status) {
  return status.config_error ? `the last good one; the file is bad: ${status.config_error}` : 'as in the file';
}

export class Overlay {
  /** @type {Map<string, HTMLElement>} */ #values = new Map();

  /** @param {HTMLElement} list a `dl` */
  constructor(list) {
    this.list = list;
  }

  /** @param {Readings} readings */
  show(readings) {
    for (const [label, value] of rows(readings)) {
      let cell = this.#values.get(label);
      if (!cell) {
        const term = document.createElement('dt');
        cell = document.createElement('dd');
        term.textContent = label;
        cell.dataset.stat = label;
        this.list.append(term, cell);
        this.#values.set(label, cell);
      }
      if (cell.textContent !== value) cell.textContent = value;
    }
  }
}
