// @ts-check
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { rows } from '../overlay.js';
import { StatsReader } from '../stats.js';

/**
 * @param {number} at @param {number} frames @param {number} bytes
 * @param {{ local?: object, remote?: object }} [candidates]
 * @returns {[string, any][]}
 */
function report(at, frames, bytes, { local = {}, remote = {} } = {}) {
  const entries = [
    {
      ...{ id: 'V', type: 'inbound-rtp', kind: 'video', codecId: 'C', timestamp: at, framesDecoded: frames },
      ...{ bytesReceived: bytes, headerBytesReceived: 0, packetsReceived: 90, packetsLost: 10, nackCount: 9 },
      ...{ frameWidth: 1280, frameHeight: 720, jitterBufferDelay: frames * 0.005, jitterBufferEmittedCount: frames },
    },
    { id: 'C', type: 'codec', mimeType: 'video/H264', sdpFmtpLine: 'level-asymmetry-allowed=1;profile-level-id=42e01f' },
    { id: 'T', type: 'transport', selectedCandidatePairId: 'P' },
    { id: 'P', type: 'candidate-pair', localCandidateId: 'L', remoteCandidateId: 'R', currentRoundTripTime: 0.0123 },
    { id: 'L', type: 'local-candidate', candidateType: 'host', protocol: 'udp', ...local },
    { id: 'R', type: 'remote-candidate', candidateType: 'host', protocol: 'udp', ...remote },
  ];
  return entries.map((entry) => [entry.id, entry]);
}

test('rates are those between two looks', () => {
  const reader = new StatsReader();
  assert.equal(reader.read(report(1000, 10, 1000))?.fps, undefined);
  const stats = reader.read(report(3000, 70, 501_000));
  assert.equal(stats?.fps, 30);
  assert.equal(stats?.kbps, 2000);
  assert.equal(Math.round(stats?.jitterBufferMs ?? 0), 5);
  assert.equal(stats?.codec, 'H264');
  assert.equal(stats?.rttMs, 12.3);
});

test('direct and relayed paths are told apart, and whose relay it is', () => {
  const read = (/** @type {any} */ candidates) => new StatsReader().read(report(1000, 1, 1, candidates));
  assert.equal(read({})?.path, 'direct (UDP)');
  assert.equal(read({})?.relayed, false);
  assert.equal(read({ local: { candidateType: 'relay', relayProtocol: 'tcp' } })?.path, "relayed (this side's relay by TCP)");
  assert.equal(read({ remote: { candidateType: 'relay' } })?.path, "relayed (the device's relay)");
  assert.equal(read({ remote: { candidateType: 'relay' } })?.relayed, true);
});

test('the overlay shows figures with their error, and n/a for what is not known', () => {
  const last = { rtpTimestamp: 0, capturedMs: 0, presentedMs: 0, latencyMs: 0, errorMs: 0 };
  const stats = new StatsReader().read(report(1000, 1, 1));
  const latency = { medianMs: 38.4, errorMs: 0.6, last };
  const shown = new Map(rows({ stats, latency, device: { target_bps: 2e6, dropped: 3 }, broker: false }));
  assert.equal(shown.get('Latency'), '38 ms ± 1');
  assert.equal(shown.get('Loss'), '10 of 100 packets, 9 NACKs');
  assert.equal(shown.get('Path carries'), 'n/a');
  assert.equal(shown.get('Encoder target'), '2.00 Mbit/s');
  assert.match(shown.get('Broker') ?? '', /^away/);
  const status = { online: true, boot: '', seq: 1, version: 1, name: 'x', software: '1', streams: [] };
  const base = { stats: undefined, latency: undefined, device: undefined, broker: true };
  assert.equal(new Map(rows({ ...base, status })).get('Configuration'), 'as in the file');
  const bad = new Map(rows({ ...base, status: { ...status, config_error: 'line 3: no such key' } }));
  assert.match(bad.get('Configuration') ?? '', /last good one.*line 3: no such key/);
  const nothing = rows({ stats: undefined, latency: undefined, device: undefined, broker: true });
  assert.ok(nothing.every(([label, value]) => value === 'n/a' || label === 'Broker'));
});
