import assert from 'node:assert/strict';
import { test } from 'node:test';

import { describeObstacle } from '../obstacle.js';

const UDP = 'turn:turn.example.org:3478?transport=udp';
const TLS = 'turns:turn.example.org:443?transport=tcp';
const STUN = 'stun:stun.example.org';

/** @param {Partial<import('../obstacle.js').Attempt>} seen */
function says(seen) {
  return describeObstacle({ urls: [], relayOnly: false, errors: [], own: new Set(['host']), device: new Set(['host']), ...seen });
}

test('each obstacle has a sentence of its own', () => {
  for (const [seen, sentence] of /** @type {[Partial<import('../obstacle.js').Attempt>, RegExp][]} */ ([
    [{}, /both sides are behind strict routers, and the device knows no TURN server/],
    [{ relayOnly: true }, /Only relayed paths are allowed, and the device knows no TURN server/],
    [{ urls: [STUN] }, /This network seems to let no UDP out, and the device knows no TURN server/],
    [{ urls: [STUN], own: new Set(['host', 'srflx']) }, /strict routers, and the device knows no TURN server/],
    [{ urls: [UDP, TLS], errors: [{ url: TLS, code: 401 }] }, /turn\.example\.org refuses the user name or password/],
    [{ urls: [UDP], errors: [{ url: UDP, code: 486 }] }, /turn\.example\.org is full/],
    [{ urls: [UDP], errors: [{ url: UDP, code: 701 }] }, /turn\.example\.org does not answer.*no UDP out.*turns:/],
    [{ urls: [UDP, TLS] }, /turn\.example\.org does not answer. Is it running/],
    [{ urls: [UDP], own: new Set(['relay']), relayOnly: true }, /the device may not/],
    [{ urls: [UDP], own: new Set(['host', 'relay']), device: new Set(['host', 'relay']) }, /nothing got through/],
  ])) {
    assert.match(says(seen), sentence, JSON.stringify(seen));
  }
});

test('it says what was tried', () => {
  assert.match(says({}), /^Tried directly\. /);
  assert.match(says({ urls: [STUN, UDP, TLS] }), /^Tried directly and through the TURN server turn\.example\.org \(UDP, TLS\)\. /);
  assert.match(says({ urls: ['turn:[2001:db8::1]:3478'], relayOnly: true }), /^Tried through the TURN server 2001:db8::1 \(UDP\)\. /);
});
