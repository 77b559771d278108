// @ts-check
/**
 * What the page says: one title and one sentence for every situation. Pure, so that all of it can be read and tested in one place.
 */

/**
 * @typedef {'broker' | 'asking' | 'connecting' | 'playing' | 'waiting' | 'refused' | 'failed'} Phase
 *
 * @typedef {object} Situation
 * @property {Phase} phase
 * @property {string} device id
 * @property {string} [broker] nothing where the page speaks to the device itself
 * @property {string} [name] the device's, once known
 * @property {string} [stream]
 * @property {import('./protocol.js').Status} [status]
 * @property {Date} [offlineSince] if the page saw the device go
 * @property {number} brokerTries failed ones since the last connection
 * @property {string} brokerWhy
 * @property {number} unanswered hellos since the last reply
 * @property {string} [error] the sentence for `refused` and `failed`
 * @property {string} [obstacle] for `refused`: what stood in the way
 * @property {boolean} network the browser believes that there is one
 * @property {boolean} seen a picture was on the screen in this session
 * @property {boolean} blocked the browser plays only after a tap
 *
 * @typedef {{ title: string, detail: string, busy: boolean }} Words
 */

/**
 * @param {Situation} now
 * @returns {Words | undefined} nothing while the picture speaks for itself
 */
export function describe(now) {
  const name = now.name ?? now.status?.name ?? `“${now.device}”`;
  if (now.phase === 'failed') return say('This can’t work yet', now.error ?? '', false);
  if (now.blocked && now.phase !== 'broker' && now.phase !== 'refused') {
    return say('Tap to play', 'The browser waits for you before it plays video.', false);
  }
  if (now.phase === 'playing') return undefined;
  if (!now.network) return say('No network', 'Your phone or computer is not connected. The picture comes back with the network.');
  switch (now.phase) {
    case 'broker':
      return now.broker === undefined ? describeDirect(now, name) : describeBroker(now.broker, now);
    case 'asking':
      return describeAsking(now, name);
    case 'connecting':
      return say(`Connecting to ${name}…`, 'It has answered; looking for the shortest path to it.');
    case 'waiting':
      return describeWaiting(now, name);
    case 'refused':
      // Whoever says farewell is gone a moment later.
      if (now.status && !now.status.online) return describeOffline(now, name);
      return say(now.error ?? `${name} refused`, [now.obstacle, 'Trying again by itself.'].filter(Boolean).join(' '));
  }
}

/**
 * There is no broker: who does not answer is the device.
 * @param {Situation} now
 * @param {string} name
 */
function describeDirect(now, name) {
  if (now.status && !now.status.online) return describeOffline(now, name);
  if (now.brokerTries === 0) return say(`Looking for ${name}…`, '');
  return say(`${name} does not answer`, 'Is it switched on, and is this the right network? Trying again by itself.');
}

/**
 * @param {string} broker
 * @param {Situation} now
 */
function describeBroker(broker, { brokerTries, brokerWhy }) {
  // Only the host: the rest of a broker's address can be a secret, and pages are photographed.
  const { host } = new URL(broker);
  if (brokerTries === 0) return say('Looking for the broker…', host);
  const why = brokerWhy ? ` (${brokerWhy})` : '';
  return say('The broker does not answer', `${host}${why}. Is it running, and is this the right network? Trying again by itself.`);
}

/**
 * @param {Situation} now
 * @param {string} name
 */
function describeAsking(now, name) {
  const { status, unanswered, device } = now;
  if (status && !status.online) return describeOffline(now, name);
  if (unanswered === 0) return say(`Asking ${name} for the picture…`, '');
  if (!status) {
    return say(`The broker knows no device “${device}”`, 'Is the name right, and is the device switched on? Asking again by itself.');
  }
  const who = now.broker === undefined ? 'It takes the connection, and says nothing.' : 'The broker believes that it is online.';
  return say(`${name} does not answer`, `${who} Asking again by itself.`);
}

/**
 * @param {Situation} now
 * @param {string} name
 */
function describeOffline({ offlineSince, phase, error }, name) {
  const since = offlineSince ? ` since ${clock(offlineSince)}` : '';
  // The device's sentences stand alone elsewhere, without a full stop.
  const farewell = phase === 'refused' && error ? `${error.replace(/[.!]?$/, '.')} ` : '';
  return say(`${name} is offline${since}`, `${farewell}Waiting for it; the picture starts by itself.`);
}

/**
 * @param {Situation} now
 * @param {string} name
 */
function describeWaiting(now, name) {
  const { status, stream, seen } = now;
  if (status && !status.online) return describeOffline(now, name);
  const camera = status?.streams.find((entry) => entry.name === stream);
  const which = `The camera “${stream}”`;
  switch (camera?.state) {
    case 'lost':
      return say(`${which} is gone; waiting for it`, camera.reason ?? 'Is it plugged in? The picture comes back by itself.');
    case 'starting':
      return say(`${which} is starting…`, camera.reason ?? '');
    case 'unsupported':
      return say(`${which} sends what no browser can show`, camera.reason ?? '', false);
    default:
      if (!seen) return say('Waiting for the first picture…', '');
      return say('The picture has stopped', `Asking ${name} for a new one.`);
  }
}

/**
 * @param {string} title
 * @param {string} detail
 * @param {boolean} [busy]
 * @returns {Words}
 */
function say(title, detail, busy = true) {
  return { title, detail, busy };
}

/** @param {Date} date */
function clock(date) {
  return date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
}
