// @ts-check
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NoReply, Rpc, RpcError } from '../rpc.js';

/** An Rpc whose messages are kept, and the newest of them. */
function recorded() {
  /** @type {any[]} */
  const sent = [];
  return { sent, rpc: new Rpc((text) => sent.push(JSON.parse(text))) };
}

test('a reply finds its request, whatever the order', async () => {
  const { rpc, sent } = recorded();
  const first = rpc.request('a', { x: 1 });
  const second = rpc.request('b');
  assert.deepEqual(sent[0], { jsonrpc: '2.0', id: 1, method: 'a', params: { x: 1 } });
  rpc.receive(JSON.stringify({ jsonrpc: '2.0', id: sent[1].id, result: 'two' }));
  rpc.receive(JSON.stringify({ jsonrpc: '2.0', id: sent[0].id, result: 'one' }));
  assert.deepEqual([await first, await second], ['one', 'two']);
});

test('an error keeps code, sentence and data', async () => {
  const { rpc } = recorded();
  const asked = rpc.request('session.offer');
  rpc.receive('{"jsonrpc":"2.0","id":1,"error":{"code":-32006,"message":"too late","data":{"nonce":"n"}}}');
  const error = await asked.catch((/** @type {unknown} */ caught) => caught);
  assert.ok(error instanceof RpcError);
  assert.deepEqual([error.code, error.message, error.data.nonce], [-32006, 'too late', 'n']);
});

test('silence ends in a sentence, and a late reply is ignored', async () => {
  const { rpc } = recorded();
  const error = await rpc.request('session.hello', {}, { timeoutMs: 5 }).catch((caught) => caught);
  assert.ok(error instanceof NoReply);
  assert.match(error.message, /session\.hello was not answered/);
  rpc.receive('{"jsonrpc":"2.0","id":1,"result":{}}');
});

test('a signal ends the wait with its own reason', async () => {
  const { rpc } = recorded();
  const abort = new AbortController();
  const asked = rpc.request('a', {}, { signal: abort.signal });
  abort.abort(new Error('begin again'));
  await assert.rejects(asked, /begin again/);
  await assert.rejects(rpc.request('a', {}, { signal: abort.signal }), /begin again/);
});

test('closing fails what waits and what comes', async () => {
  const { rpc, sent } = recorded();
  const asked = rpc.request('a');
  rpc.close('gone');
  await assert.rejects(asked, NoReply);
  await assert.rejects(rpc.request('b'), NoReply);
  rpc.notify('c', {});
  assert.equal(sent.length, 1);
});

test('a carrier that is down fails the request and swallows the notification', async () => {
  const rpc = new Rpc(() => {
    throw new NoReply('The broker is not connected.');
  });
  await assert.rejects(rpc.request('a'), /not connected/);
  rpc.notify('b', {});
});

test('notifications reach their handler; requests are refused; litter is ignored', () => {
  const { rpc, sent } = recorded();
  /** @type {any[]} */
  const heard = [];
  rpc.on('session.stats', (params) => heard.push(params));
  for (const litter of ['', 'null', '[]', '7', '{"jsonrpc":"1.0","method":"session.stats"}', '{"jsonrpc":"2.0","id":99,"result":1}']) {
    rpc.receive(litter);
  }
  rpc.receive('{"jsonrpc":"2.0","method":"session.stats","params":{"dropped":1}}');
  rpc.receive('{"jsonrpc":"2.0","method":"unknown"}');
  rpc.receive('{"jsonrpc":"2.0","id":"q","method":"open.door"}');
  assert.deepEqual(heard, [{ dropped: 1 }]);
  assert.equal(sent.length, 1);
  assert.equal(sent[0].id, 'q');
  assert.equal(sent[0].error.code, -32601);
});
