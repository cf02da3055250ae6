// node client.js WHAT URL [CA-FILE]: does one thing over a WebSocket and prints what came of it.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const { once } = require('events');
const WebSocket = require('ws');

const [what, url, ca] = process.argv.slice(2);
const options = ca ? { ca: fs.readFileSync(ca) } : {};

// Opens `url` + `path`; messages are queued from the first byte on, so that none is missed.
async function open(path, protocols = []) {
  const socket = new WebSocket(url + path, protocols, options);
  const messages = [];
  const waiting = [];
  socket.on('message', (data, binary) => {
    const message = binary ? data : data.toString();
    waiting.length ? waiting.shift()(message) : messages.push(message);
  });
  socket.next = () =>
    messages.length ? Promise.resolve(messages.shift()) : new Promise((resolve) => waiting.push(resolve));
  socket.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
  await once(socket, 'open');
  return socket;
}

const deeds = {
  async text() {
    const socket = await open('/');
    console.log(await socket.next());
    socket.send('grüße 🌊');
    console.log(await socket.next());
    socket.close(1000);
  },

  async binary() {
    const socket = await open('/echo');
    for (const length of [0, 1, 125, 126, 65535, 65536, 1000003]) {
      const sent = crypto.randomBytes(length);
      socket.send(sent);
      const got = await socket.next();
      console.log(`${length} ${Buffer.isBuffer(got) && got.equals(sent) ? 'same' : 'different'}`);
    }
    socket.close(1000);
  },

  async fragmented() {
    const socket = await open('/echo');
    socket.send('three ', { fin: false });
    socket.ping('between');
    socket.send('fragments ', { fin: false });
    socket.send('sent', { fin: true });
    console.log(await socket.next());
    const fragments = await open('/fragments');
    console.log(await fragments.next());
    socket.close(1000);
    fragments.close(1000);
  },

  async ping() {
    const socket = await open('/echo');
    socket.ping('from the client');
    const [data] = await once(socket, 'pong');
    console.log(`ponged ${data}`);
    socket.close(1000);
  },

  async pinged() {
    const socket = await open('/pinging');
    console.log(await socket.next());
    socket.close(1000);
  },

  async deflate() {
    const socket = await open('/echo');
    console.log(socket.extensions);
    const sent = 'tide '.repeat(100000);
    socket.send(sent);
    const got = await socket.next();
    console.log(got === sent ? 'same' : 'different');
    console.log(socket._socket.bytesRead < 20000 ? 'small on the wire' : `${socket._socket.bytesRead} bytes`);
    socket.close(1000);
  },

  async subprotocol() {
    const socket = await open('/echo', ['chat.v1', 'chat.v2']);
    console.log(socket.protocol);
    socket.close(1000);
  },

  async close() {
    const socket = await open('/echo');
    socket.close(4000, 'moving on');
  },

  async leave() {
    const socket = await open('/echo');
    socket.close(1000, 'done');
  },

  async closed() {
    await open('/close/4000/not%20here');
  },

  async left() {
    await open('/close/1000/bye');
  },
};

deeds[what]().catch((error) => {
  console.error(error);
  process.exit(1);
});
