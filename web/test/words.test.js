// @ts-check
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { describe } from '../words.js';

/** @param {Partial<import('../words.js').Situation>} news */
function words(news) {
  const address = { device: 'cam1', broker: 'ws://b:1', stream: 'main' };
  const quiet = { brokerTries: 0, brokerWhy: '', unanswered: 0, network: true, seen: false, blocked: false };
  return describe({ phase: 'asking', ...address, ...quiet, ...news });
}

/** @param {Partial<import('../protocol.js').Status>} news @returns {import('../protocol.js').Status} */
function status(news) {
  return { online: true, boot: 'b', seq: 1, name: 'Garden', software: '0.1.0', streams: [], ...news };
}

test('every situation has its words', () => {
  const gone = status({ online: false });
  /** @param {import('../protocol.js').StreamState} state */
  const camera = (state) => status({ streams: [{ name: 'main', state, reason: 'No such device.' }] });
  /** @type {[Partial<import('../words.js').Situation>, string | undefined][]} */
  const table = [
    [{ phase: 'broker' }, 'Looking for the broker…'],
    [{ phase: 'broker', brokerTries: 2 }, 'The broker does not answer'],
    [{ phase: 'broker', network: false }, 'No network'],
    [{}, 'Asking “cam1” for the picture…'],
    [{ unanswered: 1 }, 'The broker knows no device “cam1”'],
    [{ unanswered: 1, status: status({}) }, 'Garden does not answer'],
    [{ status: gone }, 'Garden is offline'],
    [{ status: gone, offlineSince: new Date(2026, 0, 1, 14, 3) }, 'Garden is offline since 14:03'],
    [{ phase: 'connecting', name: 'Garden' }, 'Connecting to Garden…'],
    [{ phase: 'playing' }, undefined],
    [{ phase: 'playing', network: false }, undefined],
    [{ phase: 'playing', blocked: true }, 'Tap to play'],
    [{ phase: 'waiting' }, 'Waiting for the first picture…'],
    [{ phase: 'waiting', seen: true }, 'The picture has stopped'],
    [{ phase: 'waiting', seen: true, status: gone }, 'Garden is offline'],
    [{ phase: 'waiting', status: camera('lost') }, 'The camera “main” is gone; waiting for it'],
    [{ phase: 'waiting', status: camera('starting') }, 'The camera “main” is starting…'],
    [{ phase: 'waiting', status: camera('unsupported') }, 'The camera “main” sends what no browser can show'],
    [{ phase: 'refused', error: 'All 20 seats are taken.' }, 'All 20 seats are taken.'],
    [{ phase: 'refused', error: 'The agent is being stopped.', status: gone }, 'Garden is offline'],
    [{ phase: 'failed', error: 'why' }, 'This can’t work yet'],
  ];
  for (const [news, title] of table) assert.equal(words(news)?.title, title, JSON.stringify(news));
});

test('without a broker none is spoken of', () => {
  /** @type {[Partial<import('../words.js').Situation>, string | undefined][]} */
  const table = [
    [{ phase: 'broker' }, 'Looking for “cam1”…'],
    [{ phase: 'broker', brokerTries: 2, name: 'Garden' }, 'Garden does not answer'],
    [{ phase: 'broker', brokerTries: 2, status: status({ online: false }) }, 'Garden is offline'],
    [{ phase: 'asking', unanswered: 1, status: status({}) }, 'Garden does not answer'],
  ];
  for (const [news, title] of table) {
    const said = words({ ...news, broker: undefined });
    assert.equal(said?.title, title, JSON.stringify(news));
    assert.doesNotMatch(`${said?.title} ${said?.detail}`, /broker/i);
  }
});

test('a sentence from the device is shown as it is', () => {
  const lost = status({ streams: [{ name: 'main', state: 'lost', reason: '/dev/video0 was unplugged.' }] });
  assert.equal(words({ phase: 'waiting', seen: true, status: lost })?.detail, '/dev/video0 was unplugged.');
});

test('a farewell is told together with its consequence', () => {
  const bye = words({ phase: 'refused', error: 'the device is shutting down', status: status({ online: false }) });
  assert.equal(bye?.detail, 'the device is shutting down. Waiting for it; the picture starts by itself.');
});

test('a secret in the address of the broker stays off the screen', () => {
  for (const brokerTries of [0, 3]) {
    const { detail } = words({ phase: 'broker', broker: 'ws://me:pass@b:1/secret', brokerTries }) ?? { detail: '' };
    assert.match(detail, /^b:1/);
    assert.doesNotMatch(detail, /secret|pass/);
  }
});
