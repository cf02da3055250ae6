// The echo server of the Autobahn run: every message comes back as it is, compressed if that was agreed. Prints
// `listening on PORT`.
'use strict';

const { WebSocketServer } = require('ws');

const sockets = new WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  // Without the threshold, `ws` leaves short messages uncompressed, and the cases about compression would show less.
  // They are hundreds of megabytes: how small those become is not what is compared.
  perMessageDeflate: { threshold: 0, zlibDeflateOptions: { level: 1 } },
  // The suite sends messages of up to 16 MiB, some of them in fragments of 64 bytes.
  maxPayload: 64 * 1024 * 1024,
  maxFragments: 0,
});

sockets.on('connection', (socket) => {
  // Most cases break the protocol: the suite says what came of it, and the server goes on.
  socket.on('error', () => {});
  socket.on('message', (data, binary) => socket.send(data, { binary }));
});

sockets.on('listening', () => console.log(`listening on ${sockets.address().port}`));
